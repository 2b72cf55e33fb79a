"""Which files a command is to do, what their results are called, and which of them are finished.

Results of single files lie in the output folder, those of a folder keep its tree. The journal in
the output folder is what lets an interrupted run continue, and what tells a result of this command
from a file that somebody else put there.
"""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saga_sr.audio.scan import MEDIA_SUFFIXES, READABLE, Scan, scan_audio
from saga_sr.audio.streams import ENCODINGS
from saga_sr.support.errors import UserError
from saga_sr.support.files import fitting_name, json_text

JOURNAL = "upsample.jsonl"
RESTORED = ".restored"
LINE_FOLLOWS_S = 1.0  # by then the line of a whole file stands in the journal


@dataclass(frozen=True)
class Job:
    """One input file and where its result goes.

    Attributes:
        input, output: the two files.
        root: the output folder whose journal records the result; None for a result on its own.
    """

    input: Path
    output: Path
    root: Path | None = field(default=None, compare=False)


def collect_jobs(
    inputs: list[Path], output: Path | None, audio_format: str | None, looked: Scan | None = None
) -> list[Job]:
    """Which files to do, and what their results are called.

    Args:
        inputs: files and folders.
        output: a file or a folder; None: ``old.restored.wav`` beside each file, and a folder
            ``recordings.restored`` beside each folder.
        audio_format: ``wav`` or ``flac``, of results whose name does not say it.
        looked: gets what the folders hold beside audio, and what could not be looked into.

    Raises:
        UserError: an input does not exist, a folder holds no audio, or ``output`` cannot serve.
    """
    looked = Scan() if looked is None else looked
    suffix = f".{audio_format or 'wav'}"
    if output is None:
        jobs = [job for path in inputs for job in _beside(_existing(path), suffix, looked)]
    elif output.suffix.lower() in MEDIA_SUFFIXES and not output.is_dir():
        jobs = [_one_file(inputs, output, audio_format)]
    elif output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: it is a file, neither .wav nor .flac, nor a folder")
    else:
        jobs = _into_folder(inputs, output, suffix, looked)
    jobs = list(dict.fromkeys(jobs))
    _refuse_clashes(jobs)
    return jobs


def _one_file(inputs: list[Path], output: Path, audio_format: str | None) -> Job:
    suffix = output.suffix.lower()
    if suffix not in ENCODINGS:
        raise UserError(f"--output {output}: allowed are {', '.join(ENCODINGS)} or a folder")
    if len(inputs) > 1 or inputs[0].is_dir():
        raise UserError(f"--output {output}: several inputs need a folder")
    if audio_format is not None and f".{audio_format}" != suffix:
        raise UserError(f"--format {audio_format}: contradicts --output {output}")
    return Job(_existing(inputs[0]), output)


def _beside(path: Path, suffix: str, looked: Scan) -> list[Job]:
    """Results without an ``--output``."""
    path = Path(os.path.abspath(path)) if path.name in ("", "..") else path
    if path.is_dir():
        return _into_folder(
            [path], path.with_name(fitting_name(path.name, RESTORED)), suffix, looked
        )
    return [Job(path, path.with_name(fitting_name(path.stem, RESTORED + suffix)))]


def _into_folder(inputs: list[Path], output: Path, suffix: str, looked: Scan) -> list[Job]:
    found = [pair for path in inputs for pair in _audio_below(_existing(path), output, looked)]
    found = list(dict.fromkeys(found))
    stems = Counter(relative.with_suffix("") for _, relative in found)
    return [
        Job(path, output / _output_name(relative, suffix, stems), output)
        for path, relative in found
    ]


def _refuse_clashes(jobs: list[Job]) -> None:
    inputs: dict[Path, list[Path]] = {}
    for job in jobs:
        inputs.setdefault(job.output, []).append(job.input)
    clashes = [
        f"{output}: {', '.join(map(str, paths))}"
        for output, paths in inputs.items()
        if len(paths) > 1
    ]
    if clashes:
        raise UserError.listing("several inputs would become one file; do them apart", clashes)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return path


def _audio_below(path: Path, output: Path, looked: Scan) -> list[tuple[Path, Path]]:
    """(file, path relative to the input folder) of every audio file; outputs are no inputs."""
    if not path.is_dir():
        return [(path, Path(path.name))]
    same = output.resolve() == path.resolve()
    scan = scan_audio(path, excluded=None if same else output)
    looked.others.update(scan.others)
    looked.unreadable.extend(scan.unreadable)
    if not scan.audio:
        left_alone = f"; {scan.others_text()}" if scan.others else ""
        raise UserError(f"{path}: no audio files ({READABLE}){left_alone}")
    names = [os.fsdecode(file.name) for file in scan.audio]
    made = Journal(output).outputs() if same else set()
    return [(path / name, Path(name)) for name in names if name not in made]


def _output_name(relative: Path, suffix: str, stems: Counter[Path]) -> Path:
    """``a/b.wav`` for ``a/b.mp3``; ``a/b.mp3.wav`` where there is also an ``a/b.ogg``."""
    alone = stems[relative.with_suffix("")] == 1
    return relative.with_name(fitting_name(relative.stem if alone else relative.name, suffix))


class Journal:
    """What is finished in an output folder, a JSON object per line, so that a run can continue.

    A line is written after its file is whole. A torn last line is of no file and is ignored.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._records: dict[str, dict[str, Any]] = {}
        self._load()

    def _load(self) -> None:
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8", errors="replace").split("\n"):
                record = _parsed(line)
                if "output" in record:
                    self._records[record["output"]] = record

    def outputs(self) -> set[str]:
        """Names of all results, relative to the folder."""
        return set(self._records)

    def is_done(self, output: Path, key: dict[str, Any]) -> bool:
        """Whether ``output`` is there as it was recorded, from the same input and options."""
        if not output.is_file():
            return False
        if not self._recorded(output, key):
            self._load()  # another process may have done it, or be about to write its line
        age_s = abs(time.time() - output.stat().st_mtime)
        until_s = time.monotonic() + LINE_FOLLOWS_S - age_s
        while not self._recorded(output, {}) and time.monotonic() < until_s:
            time.sleep(LINE_FOLLOWS_S / 20)
            self._load()
        return self._recorded(output, key)

    def _recorded(self, output: Path, key: dict[str, Any]) -> bool:
        record = self._records.get(self._name(output), {})
        unchanged = output.stat().st_size == record.get("output_bytes")
        return unchanged and all(record.get(name) == value for name, value in key.items())

    def add(self, output: Path, key: dict[str, Any], report: dict[str, Any]) -> None:
        size = output.stat().st_size
        record = {"output": self._name(output), "output_bytes": size, **key, **report}
        with open(self._path, "a", encoding="utf-8") as file:
            if file.tell() and not self._ends_with_newline():
                file.write("\n")
            file.write(json_text(record) + "\n")
        self._records[record["output"]] = record

    def _name(self, output: Path) -> str:
        return output.relative_to(self._path.parent).as_posix()

    def _ends_with_newline(self) -> bool:
        with open(self._path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _parsed(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}

"""Which files a command is to do, what their results are called, and which of them are finished.

Results of single files lie in the output folder, those of a folder keep its tree. The journal in
the output folder is what lets an interrupted run continue, and what tells a result of this command
from a file that somebody else put there.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saga_sr.audio.file import EXTENSIONS
from saga_sr.audio.streams import ENCODINGS
from saga_sr.support.errors import UserError

JOURNAL = "upsample.jsonl"


@dataclass(frozen=True)
class Job:
    """One input file and where its result goes."""

    input: Path
    output: Path


def collect_jobs(inputs: list[Path], output: Path, audio_format: str | None) -> list[Job]:
    """Which files to do, and what their results are called.

    Raises:
        UserError: an input does not exist, a folder holds no audio, or ``output`` cannot serve.
    """
    suffix = output.suffix.lower()
    if suffix in EXTENSIONS and not output.is_dir():
        if suffix not in ENCODINGS:
            raise UserError(f"--output {output}: allowed are {', '.join(ENCODINGS)} or a folder")
        if len(inputs) > 1 or inputs[0].is_dir():
            raise UserError(f"--output {output}: several inputs need a folder")
        if audio_format is not None and f".{audio_format}" != suffix:
            raise UserError(f"--format {audio_format}: contradicts --output {output}")
        return [Job(_existing(inputs[0]), output)]
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: it is a file, neither .wav nor .flac, nor a folder")
    found = [pair for path in inputs for pair in _audio_below(_existing(path), output)]
    found = list(dict.fromkeys(found))
    stems = Counter(relative.with_suffix("") for _, relative in found)
    suffix = f".{audio_format or 'wav'}"
    jobs = [Job(path, output / _output_name(relative, suffix, stems)) for path, relative in found]
    _refuse_clashes(jobs)
    return jobs


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


def _audio_below(path: Path, output: Path) -> list[tuple[Path, Path]]:
    """(file, path relative to the input folder) of every audio file; outputs are no inputs."""
    if path.is_file():
        return [(path, Path(path.name))]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in EXTENSIONS
        and file.is_file()
        and not file.name.startswith(".")
        and not (output != path and output in file.parents)
    )
    if not files:
        raise UserError(f"{path}: no audio files ({' '.join(sorted(EXTENSIONS))})")
    return [(file, file.relative_to(path)) for file in files]


def _output_name(relative: Path, suffix: str, stems: Counter[Path]) -> Path:
    """``a/b.wav`` for ``a/b.mp3``; ``a/b.mp3.wav`` where there is also an ``a/b.ogg``."""
    if stems[relative.with_suffix("")] == 1:
        return relative.with_suffix(suffix)
    return relative.with_name(relative.name + suffix)


class Journal:
    """What is finished in an output folder, a JSON object per line, so that a run can continue.

    A line is written after its file is whole. A torn last line is of no file and is ignored.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._records: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                record = _parsed(line)
                if "output" in record:
                    self._records[record["output"]] = record

    def is_done(self, output: Path, key: dict[str, Any]) -> bool:
        """Whether ``output`` is there as it was recorded, from the same input and options."""
        record = self._records.get(self._name(output), {})
        unchanged = output.is_file() and output.stat().st_size == record.get("output_bytes")
        return unchanged and all(record.get(name) == value for name, value in key.items())

    def add(self, output: Path, key: dict[str, Any], report: dict[str, Any]) -> None:
        size = output.stat().st_size
        record = {"output": self._name(output), "output_bytes": size, **key, **report}
        with open(self._path, "a", encoding="utf-8") as file:
            if file.tell() and not self._ends_with_newline():
                file.write("\n")
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
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

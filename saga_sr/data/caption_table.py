"""captions.jsonl: one caption a line, to be read by people, compared, merged and looked up.

Each line is one JSON object in UTF-8, ``{"path", "start", "end", "caption", "model", "hash"}``: a
caption of seconds [start, end) of one audio file, its path relative to the audio folder. Lines
are independent, so files can be concatenated, sorted and edited by hand. `saga_sr.captions` writes
them through `CaptionLog`; training asks `CaptionTable` for the caption of a crop.
"""

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from saga_sr.support.errors import UserError
from saga_sr.support.files import is_unicode, json_text, try_lock

CAPTION_FILE = "captions.jsonl"


@dataclass(frozen=True)
class CaptionRecord:
    """One line of captions.jsonl: the caption of seconds [start, end) of one file.

    ``path`` is relative to the audio folder, with forward slashes. A line written by hand needs
    ``path`` and ``caption`` only and then speaks of the whole file. ``model``, ``hash`` (SHA-256 of
    the audio file) and ``cutoff_hz`` (the audio was low-passed there first) say where it came from.
    """

    path: str
    caption: str
    start: float = 0.0
    end: float | None = None
    model: str | None = None
    hash: str | None = None
    cutoff_hz: float | None = None

    @property
    def key(self) -> tuple[str, float, float]:
        """What the caption speaks of: (path, start_s, end_s)."""
        end = math.inf if self.end is None else self.end
        return _same_path(self.path), self.start, end

    def to_line(self) -> str:
        """The record as one line of JSON; keys without a value are left out."""
        items = {name: getattr(self, name) for name in _RECORD_ORDER}
        given = {name: value for name, value in items.items() if value is not None}
        return json_text(given) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "CaptionRecord":
        """Read one line.

        Raises:
            ValueError: says what is wrong with the line.
        """
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"broken JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(values, dict):
            raise ValueError("not a JSON object {...}")
        problems = list(_record_problems(values))
        if problems:
            raise ValueError("; ".join(problems))
        return cls(**values)


_RECORD_ORDER = ("path", "start", "end", "caption", "model", "hash", "cutoff_hz")
_TEXT_KEYS = ("path", "caption", "model", "hash")


def _record_problems(values: dict[str, Any]) -> Iterator[str]:
    unknown = sorted(set(values) - set(_RECORD_ORDER))
    if unknown:
        yield f"unknown key {', '.join(unknown)} (allowed: {', '.join(_RECORD_ORDER)})"
    for name in ("path", "caption"):
        if name not in values:
            yield f"{name} is missing"
    for name in _RECORD_ORDER:
        if name in values and not _is_valid(name, values[name]):
            wanted = "a string" if name in _TEXT_KEYS else "a number of at least 0"
            yield f"{name} is {values[name]!r}, not {wanted}"
    if isinstance(values.get("path"), str):
        yield from _path_problems(values["path"])
    start, end = values.get("start", 0.0), values.get("end")
    if _is_valid("start", start) and _is_valid("end", end) and end is not None and end <= start:
        yield f"end {end} is not after start {start}"


def _is_valid(name: str, value: object) -> bool:
    if value is None:
        return name in ("end", "model", "hash", "cutoff_hz")
    if name in _TEXT_KEYS:
        return isinstance(value, str) and is_unicode(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf


def _path_problems(path: str) -> Iterator[str]:
    if not path:
        yield "path is empty"
    elif "\\" in path or re.match(r"[A-Za-z]:", path) or PurePosixPath(path).is_absolute():
        yield f"path {path!r} is not relative to the audio folder with forward slashes"
    elif ".." in PurePosixPath(path).parts:
        yield f"path {path!r} leaves the audio folder"


@dataclass(frozen=True)
class CaptionTable:
    """The captions of one audio folder: look one up by file and seconds.

    Two lines for the same seconds of the same file may repeat each other (merged files do). Where
    lines of a file have other hashes than its last, the file has changed in between: they are of
    its former content and do not count. Two captions of the same audio are an error that names
    both, since only the user knows which one is meant.
    """

    records: list[CaptionRecord] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path | str, is_growing: bool = False) -> "CaptionTable":
        """Read a captions.jsonl file.

        Args:
            path: the file.
            is_growing: another process may be writing its last line, which is then not read.

        Raises:
            UserError: there is no such file; or lists every broken line by number.
        """
        path = Path(path)
        lines, problems = _read_lines(path, is_growing)
        records: dict[tuple[str, float, float], tuple[int, CaptionRecord]] = {}
        for number, record in lines:
            first, known = records.get(record.key, (number, record))
            if known.hash == record.hash and known.caption != record.caption:
                problems.append((number, f"another caption than line {first} for {_span(record)}"))
            records[record.key] = number, record
        if problems:
            numbered = [f"line {number}: {problem}" for number, problem in sorted(problems)]
            raise UserError.listing(f"{path}: {len(numbered)} bad lines", numbered)
        present = {record.key[0]: record.hash for _, record in lines if record.hash is not None}
        return cls(
            [
                record
                for _, record in records.values()
                if record.hash is None or record.hash == present[record.key[0]]
            ]
        )

    @cached_property
    def _by_path(self) -> dict[str, list[CaptionRecord]]:
        by_path: dict[str, list[CaptionRecord]] = {}
        for record in self.records:
            by_path.setdefault(record.key[0], []).append(record)
        return by_path

    def paths(self) -> set[str]:
        """The files that have captions, as relative NFC paths with forward slashes."""
        return set(self._by_path)

    def captions_of(self, path: str | PurePosixPath) -> list[str]:
        """All captions of a file: every text that `lookup` can give for it."""
        return [record.caption for record in self._by_path.get(_same_path(path), [])]

    def lookup(self, path: str | PurePosixPath, start_s: float, end_s: float) -> str | None:
        """The caption of the segment that shares most of [start_s, end_s); None where none does.

        Among segments that share equally much, the shortest, since it says most about the clip,
        then the earliest.
        """
        records = self._by_path.get(_same_path(path), [])
        overlaps = [
            (min(end_s, record.key[2]) - max(start_s, record.start), record) for record in records
        ]
        sharing = [(overlap, record) for overlap, record in overlaps if overlap > 0]
        if not sharing:
            return None
        _, best = min(
            sharing, key=lambda item: (-item[0], item[1].key[2] - item[1].start, item[1].start)
        )
        return best.caption


def _read_lines(
    path: Path, is_growing: bool
) -> tuple[list[tuple[int, CaptionRecord]], list[tuple[int, str]]]:
    """(line number, record) of each good line and (line number, problem) of each bad one.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: the caption file cannot be read ({error.strerror})") from error
    if is_growing:
        lines = lines[:-1]
    records, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append((number, CaptionRecord.from_line(line.decode("utf-8-sig"))))
        except UnicodeDecodeError:
            problems.append((number, "not UTF-8"))
        except ValueError as error:
            problems.append((number, str(error)))
    return records, problems


def _same_path(path: str | PurePosixPath) -> str:
    """One spelling per path. Accents are composed (NFC): macOS lists files with them decomposed."""
    return unicodedata.normalize("NFC", str(PurePosixPath(path)))


def _span(record: CaptionRecord) -> str:
    end = "its end" if record.end is None else f"{record.end:g} s"
    return f"{record.path}, {record.start:g} s to {end}"


class CaptionLog:
    """captions.jsonl as a log that only grows, so that a kill costs at most its last line.

    Args:
        path: the file that this process writes; a half line at its end is cut off first.
        others: files of other processes, for reading: what they have is not made again.
        origin: a record with the model and low-pass of this run; what comes from another model or
            low-pass does not belong into the same file.

    Raises:
        UserError: another process writes ``path``, a file has broken lines, or is of other origin.
    """

    def __init__(self, path: Path, others: Sequence[Path], origin: CaptionRecord) -> None:
        self.path = path
        self._file = _open_log(path)
        self.mended = _cut_half_line(self._file)
        own = CaptionTable.read(path)
        tables = [own, *(CaptionTable.read(other, is_growing=True) for other in others)]
        for file, table in zip([path, *others], tables, strict=True):
            _refuse_other_origin(file, table, origin)
        self._own = {record.key: record for record in own.records}
        self._known = {
            (record.key, record.hash): record for table in tables for record in table.records
        }
        self._by_hand = {r.key[0] for table in tables for r in table.records if r.hash is None}

    def is_by_hand(self, record: CaptionRecord) -> bool:
        """Whether the user has written about the file of ``record``."""
        return record.key[0] in self._by_hand

    def find(self, record: CaptionRecord) -> CaptionRecord | None:
        """The line about the same part of a file with the same contents, wherever it is."""
        return self._known.get((record.key, record.hash))

    def append(self, records: Sequence[CaptionRecord]) -> None:
        """Write the records that ``path`` does not have yet, each in one piece."""
        for record in records:
            known = self._own.get(record.key)
            if known is None or known.hash != record.hash:
                self._file.write(record.to_line().encode("utf-8"))
                self._own[record.key] = record

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _open_log(path: Path) -> IO[bytes]:
    """Open for appending, unbuffered, and keep every other writer out."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise UserError(f"--output {path}: it cannot be written ({error.strerror})") from error
    if not try_lock(file):
        raise UserError(f"--output {path}: another run is writing it; give each its --shard")
    return file


def _cut_half_line(file: IO[bytes]) -> bool:
    """End the file with a whole line: complete one that lacks its end, cut off what is no line."""
    file.seek(0)
    text = file.read()
    if not text or text.endswith(b"\n"):
        return False
    border = text.rfind(b"\n") + 1
    try:
        CaptionRecord.from_line(text[border:].decode("utf-8"))
        file.write(b"\n")  # an editor's last line
    except ValueError:
        file.truncate(border)
        return True
    return False


def _refuse_other_origin(path: Path, table: CaptionTable, origin: CaptionRecord) -> None:
    for record in table.records:
        found = (record.model, record.cutoff_hz)
        if record.hash is not None and found != (origin.model, origin.cutoff_hz):
            raise UserError(
                f"{path}: its captions are from {_describe(record)}, this run's would be from "
                f"{_describe(origin)}: give another --output"
            )


def _describe(record: CaptionRecord) -> str:
    lowpass = "" if record.cutoff_hz is None else f" of audio low-passed at {record.cutoff_hz:g} Hz"
    return f"{record.model}{lowpass}"

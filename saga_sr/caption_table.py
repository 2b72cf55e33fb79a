"""captions.jsonl: one caption a line, to be read by people, compared, merged and looked up.

Each line is one JSON object in UTF-8, ``{"path", "start", "end", "caption", "model", "hash"}``: a
caption of seconds [start, end) of one audio file, its path relative to the audio folder. Lines
are independent, so files can be concatenated, sorted and edited by hand. `saga_sr.captions` writes
them; training asks `CaptionTable` for the caption of a crop. No torch is needed here.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from saga_sr.errors import UserError

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
        return json.dumps(given, ensure_ascii=False) + "\n"

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
        return isinstance(value, str) and _is_unicode(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf


def _is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which is no character and cannot be encoded."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


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
    their hashes differ, the file has changed in between and the later line counts. Two captions of
    the same audio are an error that names both, since only the user knows which one is meant.
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
        return cls([record for _, record in records.values()])

    @cached_property
    def _by_path(self) -> dict[str, list[CaptionRecord]]:
        by_path: dict[str, list[CaptionRecord]] = {}
        for record in self.records:
            by_path.setdefault(record.key[0], []).append(record)
        return by_path

    def paths(self) -> set[str]:
        """The files that have captions, as relative NFC paths with forward slashes."""
        return set(self._by_path)

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

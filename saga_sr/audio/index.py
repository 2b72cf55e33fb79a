"""Audio on disk: an index of headers, and crops that cost a crop rather than a file.

`AudioIndex` finds the audio below some folders and reads each header once. The headers are cached
per folder and read again only where a file's size or modification time changed. A million files are
a few arrays here, not a million objects: an index is small, and quick to hand to worker processes.

`read_crop` seeks, decodes what the crop needs and resamples it with enough context on both sides
that the crop of the resampled file comes out, not a crop with ends of its own (test).

What cannot be used is counted and listed once by the index. What turns bad later, while training
runs, is retried, logged with its path, and then an error: never another clip in its place.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from saga_sr.audio.decoder import NO_SOUND
from saga_sr.audio.file import AudioHeader, read_crop, read_header
from saga_sr.audio.packed_names import PackedNames
from saga_sr.audio.scan import READABLE, others_text, scan_audio
from saga_sr.support.errors import UserError
from saga_sr.support.files import cache_dir as default_cache
from saga_sr.support.files import cache_path, require_cache
from saga_sr.support.randomness import numpy_generator

MAX_UNUSABLE_FRACTION = (
    0.1  # more than this, and more than the next line, ends the scan in an error
)
ALWAYS_TOLERATED_UNUSABLE = 3
CACHE_FORMAT = 3
NOT_READ = -1
HEADER_THREADS = 8  # headers wait for the disk more than for the processor
LISTED_UNUSABLE = 20
DESCRIBED_FILES = 48  # per folder, for the bandwidth
BANDWIDTH_CROP_S = 1.5
DULL_HZ = 15000.0
HEADERS_PER_SAVE = 20_000  # a scan that is killed loses at most so many headers
logger = logging.getLogger(__name__)


@dataclass
class FolderTable:
    """The headers of all audio below one folder, sorted by relative path; a row per file."""

    names: PackedNames  # relative paths as the file system spells them
    problems: dict[int, str]  # row -> why the file cannot be used
    size: np.ndarray  # bytes, int64
    mtime_ns: np.ndarray  # int64
    frames: np.ndarray  # int64; NOT_READ, or 0 where the file cannot be used
    sample_rate: np.ndarray  # Hz, int32
    channels: np.ndarray  # int32
    exact_seeks: np.ndarray  # bool, see `AudioHeader`
    bandwidth_hz: np.ndarray  # float32, where the spectrum ends; NaN: not measured
    notes: dict[int, str] = field(default_factory=dict)  # row -> what is mended while reading
    others: Counter[str] = field(default_factory=Counter)  # suffix -> files left alone; not saved
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # folders; not saved

    COLUMNS: ClassVar = (
        "size",
        "mtime_ns",
        "frames",
        "sample_rate",
        "channels",
        "exact_seeks",
        "bandwidth_hz",
    )

    @classmethod
    def unread(cls, entries: Sequence[tuple[bytes, int, int]]) -> "FolderTable":
        """A table of (relative path, size, mtime_ns) whose headers are still to be read."""
        count = len(entries)
        return cls(
            names=PackedNames.pack([name for name, _, _ in entries]),
            problems={},
            size=np.array([size for _, size, _ in entries], dtype=np.int64),
            mtime_ns=np.array([mtime_ns for _, _, mtime_ns in entries], dtype=np.int64),
            frames=np.full(count, NOT_READ, dtype=np.int64),
            sample_rate=np.zeros(count, dtype=np.int32),
            channels=np.zeros(count, dtype=np.int32),
            exact_seeks=np.ones(count, dtype=bool),
            bandwidth_hz=np.full(count, np.nan, dtype=np.float32),
        )

    def copy_unchanged(self, known: "FolderTable") -> None:
        """Take over the rows of ``known`` whose size and time are the same and that were usable."""
        row_of = {name: row for row, name in enumerate(known.names.unpack())}
        source = np.array([row_of.get(name, -1) for name in self.names.unpack()], dtype=np.int64)
        if len(row_of) == 0 or len(source) == 0:
            return
        same = (source >= 0) & (known.frames[source] > 0)
        for column in ("size", "mtime_ns"):
            same &= getattr(known, column)[source] == getattr(self, column)
        for column in self.COLUMNS[2:]:
            getattr(self, column)[same] = getattr(known, column)[source[same]]
        rows = np.flatnonzero(same).tolist()
        self.notes = {row: known.notes[source[row]] for row in rows if source[row] in known.notes}

    def set_header(self, row: int, header: AudioHeader) -> None:
        self.frames[row] = header.frames
        self.sample_rate[row] = header.sample_rate
        self.channels[row] = header.channels
        self.exact_seeks[row] = header.exact_seeks
        if header.note:
            self.notes[row] = header.note
        if header.problem:
            self.problems[row] = header.problem

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        columns = {name: getattr(self, name) for name in self.COLUMNS}
        with cache_path(path) as temporary:
            np.savez(
                temporary,
                format=CACHE_FORMAT,
                names_blob=self.names.blob,
                names_ends=self.names.ends,
                problems=json.dumps(self.problems),
                notes=json.dumps(self.notes),
                **columns,
            )

    @classmethod
    def load(cls, path: Path) -> "FolderTable | None":
        """The table at ``path``; None where there is none, or none of this format."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                if int(stored["format"]) != CACHE_FORMAT:
                    return None
                names = PackedNames(stored["names_blob"], stored["names_ends"])
                problems, notes = (
                    {int(row): text for row, text in json.loads(str(stored[key])).items()}
                    for key in ("problems", "notes")
                )
                columns = {name: stored[name] for name in cls.COLUMNS}
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged cache can fail in any way, and is only a cache
            logger.warning("%s: the index cache is damaged (%s) and made anew", path, error)
            return None
        if any(len(column) != len(names) for column in columns.values()):
            return None
        return cls(names, problems, notes=notes, **columns)


def scan_folder(folder: Path, cache: Path, progress: bool = True) -> FolderTable:
    """Index one folder, reading only headers that the file ``cache`` does not have.

    Files that could not be used are tried again each time: a permission may have been mended.
    """
    if not cache.is_file():
        require_cache(cache.parent)
    with tqdm(desc=f"Looking through {folder}", unit=" files", disable=_bar(progress)) as bar:
        scan = scan_audio(folder, found=bar.update)
    table = FolderTable.unread([(file.name, file.size, file.mtime_ns) for file in scan.audio])
    table.others, table.unreadable = scan.others, scan.unreadable
    known = FolderTable.load(cache)
    if known is not None:
        table.copy_unchanged(known)
    unread = np.flatnonzero(table.frames == NOT_READ).tolist()
    with (
        tqdm(
            total=len(unread), desc="Reading headers", unit=" files", disable=_bar(progress)
        ) as bar,
        ThreadPoolExecutor(HEADER_THREADS) as threads,
    ):
        for begin in range(0, len(unread), HEADERS_PER_SAVE):
            rows = unread[begin : begin + HEADERS_PER_SAVE]
            paths = [os.path.join(os.fsencode(folder), table.names[row]) for row in rows]
            for row, header in zip(rows, threads.map(read_header, paths), strict=True):
                table.set_header(row, header)
                bar.update()
            table.save(cache)
    for row in [row for row, problem in table.problems.items() if problem == NO_SOUND]:
        del table.problems[row]  # a film without sound is no audio that failed
        table.others["without sound"] += 1
    return table


def _bar(progress: bool) -> bool | None:
    """tqdm's ``disable``: no bar where there is no terminal."""
    return None if progress else True


# --- several folders ------------------------------------------------------------------------------
class AudioIndex:
    """The usable audio files of one or more folders.

    Files have positions 0..N-1, folder by folder, sorted by path within each. Attributes are arrays
    over these positions.

    Attributes:
        folders: as given, resolved.
        folder_of: position in ``folders`` of each file's folder.
        frames, sample_rate, channels: from the headers.
        unusable: (path, reason) of each file, or folder, that was left out.
        others: suffix -> how many files are no audio and were left alone.
        excluded: how many usable files were left out for their bandwidth.
    """

    def __init__(self, folders: Sequence[Path], tables: Sequence[FolderTable]) -> None:
        self.folders = list(folders)
        self._tables = list(tables)
        self._caches: list[Path] = []
        self.excluded = 0
        self.min_bandwidth_hz = 0.0
        self.unusable = [
            (str(self._join(folder, table.names[row])), problem)
            for folder, table in zip(self.folders, self._tables, strict=True)
            for row, problem in sorted(table.problems.items())
        ]
        self.unusable += [one for table in self._tables for one in table.unreadable]
        self.others = sum((table.others for table in self._tables), Counter[str]())
        self._keep([np.flatnonzero(table.frames > 0) for table in self._tables])

    @classmethod
    def scan(
        cls,
        folders: Sequence[Path | str],
        cache_dir: Path | str | None = None,
        progress: bool = True,
        flag: str = "audio folder",
    ) -> "AudioIndex":
        """Index folders recursively (`scan_audio`), from the cache where nothing changed.

        Args:
            folders: one or more.
            cache_dir: where the headers are cached; by default the user's cache folder.
            progress: show a bar where there is a terminal.
            flag: how errors call the folders, such as ``--train_dir``.

        Raises:
            UserError: a folder is missing or holds no audio; no file can be used; or more than
                3 files and more than 10 % of all cannot.
        """
        resolved = [_existing_folder(folder, flag) for folder in folders]
        if not resolved:
            raise UserError(f"{flag}: no folder is given")
        cache_dir = Path(cache_dir) if cache_dir is not None else default_cache("index")
        caches = [_cache_path(folder, cache_dir) for folder in resolved]
        tables = [
            scan_folder(folder, cache, progress)
            for folder, cache in zip(resolved, caches, strict=True)
        ]
        for folder, table in zip(resolved, tables, strict=True):
            _check_usable(folder, table, flag)
        index = cls(resolved, tables)
        index._caches = caches
        return index

    def _keep(self, rows: list[np.ndarray]) -> None:
        """Set the files to these rows of each folder's table."""
        self._row = np.concatenate(rows)
        self.folder_of = np.repeat(np.arange(len(rows)), [len(kept) for kept in rows])
        for column in ("frames", "sample_rate", "channels", "exact_seeks", "bandwidth_hz"):
            parts = [getattr(t, column)[kept] for t, kept in zip(self._tables, rows, strict=True)]
            setattr(self, column, np.concatenate(parts))
        self.duration_s: np.ndarray = self.frames / self.sample_rate
        self._first = np.concatenate([[0], np.cumsum([len(kept) for kept in rows])])
        self._cumulative_s = [
            np.cumsum(self.duration_s[self._first[k] : self._first[k + 1]])
            for k in range(len(rows))
        ]

    frames: np.ndarray
    sample_rate: np.ndarray
    channels: np.ndarray
    exact_seeks: np.ndarray
    bandwidth_hz: np.ndarray

    def __len__(self) -> int:
        return len(self._row)

    @staticmethod
    def _join(folder: Path, name: bytes) -> Path:
        return folder / os.fsdecode(name)

    def relative_path(self, position: int) -> str:
        """Path below its folder, with forward slashes."""
        name = self._tables[self.folder_of[position]].names[self._row[position]]
        return os.fsdecode(name).replace(os.sep, "/")

    def path(self, position: int) -> Path:
        """Absolute path of a file."""
        return self.folders[self.folder_of[position]] / self.relative_path(position)

    def header(self, position: int) -> AudioHeader:
        return AudioHeader(
            int(self.frames[position]),
            int(self.sample_rate[position]),
            int(self.channels[position]),
            exact_seeks=bool(self.exact_seeks[position]),
        )

    def files_of(self, folder: int) -> range:
        """Positions of the files of one folder."""
        return range(self._first[folder], self._first[folder + 1])

    def draw(self, rng: np.random.Generator) -> int:
        """A file: each folder equally likely, within it each second of audio equally likely."""
        folder = int(rng.integers(len(self.folders)))
        cumulative_s = self._cumulative_s[folder]
        inside = np.searchsorted(cumulative_s, rng.random() * cumulative_s[-1], side="right")
        return int(self._first[folder] + min(int(inside), len(cumulative_s) - 1))

    def read(self, position: int, start: int, length: int, sample_rate: int) -> np.ndarray:
        """`read_crop` of a file, which must still be what it was when it was indexed."""
        path, header = self.path(position), self.header(position)
        return read_crop(path, start, length, sample_rate, header)

    def fingerprint(self) -> str:
        """Hash of all relative paths and headers: equal where draws give equal crops."""
        digest = hashlib.sha256()
        for table in self._tables:
            digest.update(table.names.blob.tobytes() + table.names.ends.tobytes())
        for column in (self._row, self.folder_of, self.frames, self.sample_rate, self.channels):
            digest.update(column.astype(np.int64).tobytes())
        return digest.hexdigest()

    # --- bandwidth --------------------------------------------------------------------------------

    def measure_bandwidth(self, positions: Iterable[int], progress: bool = True) -> None:
        """Fill ``bandwidth_hz`` of these files, once: what is measured is cached with the headers.

        A file's bandwidth is where the common spectrum of three crops of 1.5 s ends, at its own
        sample rate (`saga_sr.audio.band_end.spectrum_end_hz`).
        """
        todo = [one for one in positions if np.isnan(self.bandwidth_hz[one])]
        if not todo:
            return
        bar = tqdm(todo, "Measuring bandwidth", unit=" files", disable=_bar(progress))
        for position in bar:
            bandwidth_hz = _bandwidth_hz(self.path(position), self.header(position))
            self.bandwidth_hz[position] = bandwidth_hz
            table = self._tables[self.folder_of[position]]
            table.bandwidth_hz[self._row[position]] = bandwidth_hz
        for table, cache in zip(self._tables, self._caches, strict=False):
            table.save(cache)

    def exclude_below(self, min_bandwidth_hz: float, progress: bool = True) -> None:
        """Leave out the files whose spectrum ends below ``min_bandwidth_hz``.

        Raises:
            UserError: that would leave a folder without files.
        """
        self.measure_bandwidth(range(len(self)), progress)
        kept = self.bandwidth_hz >= min_bandwidth_hz
        rows = [self._row[kept & (self.folder_of == k)] for k in range(len(self.folders))]
        for folder, left in zip(self.folders, rows, strict=True):
            if len(left) == 0:
                raise UserError(
                    f"--min_bandwidth_hz {min_bandwidth_hz:g}: no file in {folder} reaches that far"
                )
        self.excluded += int(np.sum(~kept))
        self.min_bandwidth_hz = min_bandwidth_hz
        self._keep(rows)

    # --- description ------------------------------------------------------------------------------

    def describe(self, progress: bool = True) -> str:
        """What the corpus is: files, hours, rates, channels, real bandwidth, and what was left out.

        The bandwidth is measured on up to `DESCRIBED_FILES` files of each folder.
        """
        lines = []
        for folder in range(len(self.folders)):
            lines += self._describe_folder(folder, progress)
        if self.excluded:
            lines.append(
                f"{self.excluded} files left out: they end below {self.min_bandwidth_hz:g} Hz"
            )
        if self.others:
            lines.append(others_text(self.others))
        mended = self._notes()
        if mended:
            lines.append(f"{len(mended)} files are mended while reading:")
            lines += [f"  {path}: {note}" for path, note in mended[:LISTED_UNUSABLE]]
        if len(mended) > LISTED_UNUSABLE:
            lines.append(f"  and {len(mended) - LISTED_UNUSABLE} more")
        if self.unusable:
            lines.append(f"{len(self.unusable)} files cannot be used:")
            lines += [f"  {path}: {reason}" for path, reason in self.unusable[:LISTED_UNUSABLE]]
        if len(self.unusable) > LISTED_UNUSABLE:
            lines.append(f"  and {len(self.unusable) - LISTED_UNUSABLE} more")
        return "\n".join(lines)

    def _notes(self) -> list[tuple[str, str]]:
        """(path, what is mended) of the files that a header is wrong of."""
        return [
            (str(self._join(folder, table.names[row])), note)
            for folder, table in zip(self.folders, self._tables, strict=True)
            for row, note in sorted(table.notes.items())
        ]

    def _describe_folder(self, folder: int, progress: bool) -> list[str]:
        files = self.files_of(folder)
        inside = slice(files.start, files.stop)
        rng = numpy_generator("describe", len(files))
        sample = np.sort(rng.permutation(len(files))[:DESCRIBED_FILES]) + files.start
        self.measure_bandwidth(sample.tolist(), progress)
        ends_khz = np.percentile(self.bandwidth_hz[sample], [10, 50, 90]) / 1000
        lines = [
            f"{self.folders[folder]}: {len(files)} files, {_hours(self.duration_s[inside].sum())}; "
            f"{_counts(self.sample_rate[inside], 'Hz')}; {_counts(self.channels[inside], 'ch')}",
            "  spectrum ends at {:.1f} / {:.1f} / {:.1f} kHz ".format(*ends_khz)
            + f"(10th, 50th, 90th percentile of {len(sample)} files)",
        ]
        if ends_khz[1] * 1000 < DULL_HZ:
            lines.append(
                f"  WARNING: half of these files hold nothing above {ends_khz[1]:.1f} kHz. A model "
                "learns to stop where its training audio stops; --min_bandwidth_hz leaves dull "
                "files out"
            )
        return lines


def _existing_folder(folder: Path | str, flag: str) -> Path:
    path = Path(folder)
    if not path.exists():
        raise UserError(f"{flag} {folder}: there is no such folder")
    if not path.is_dir():
        raise UserError(f"{flag} {folder}: it is a file; a folder with audio is expected")
    return path.resolve()


def _cache_path(folder: Path, cache_dir: Path) -> Path:
    return cache_dir / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]}.npz"


def _check_usable(folder: Path, table: FolderTable, flag: str) -> None:
    bad = len(table.problems)
    total = int(np.sum(table.frames > 0)) + bad
    if total == 0:
        raise UserError(f"{flag} {folder}: it holds no audio at any depth ({READABLE})")
    if bad == total or bad > max(ALWAYS_TOLERATED_UNUSABLE, MAX_UNUSABLE_FRACTION * total):
        listed = sorted(table.problems.items())[:LISTED_UNUSABLE]
        problems = [f"{os.fsdecode(table.names[row])}: {problem}" for row, problem in listed]
        if bad > len(listed):
            problems.append(f"and {bad - len(listed)} more")
        raise UserError.listing(
            f"{flag} {folder}: {bad} of {total} audio files cannot be used; up to "
            f"{ALWAYS_TOLERATED_UNUSABLE} or {MAX_UNUSABLE_FRACTION:.0%} are left out",
            problems,
        )


def _bandwidth_hz(path: Path, header: AudioHeader) -> float:
    """Where the spectrum of a file ends, in Hz; 0 for a silent one."""
    import torch

    from saga_sr.audio.band_end import spectrum_end_hz

    length = min(header.frames, round(BANDWIDTH_CROP_S * header.sample_rate))
    crops = [
        read_crop(path, round(share * (header.frames - length)), length, header.sample_rate, header)
        for share in (1 / 6, 1 / 2, 5 / 6)
    ]
    return spectrum_end_hz(torch.from_numpy(np.concatenate(crops)), header.sample_rate)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"


def _counts(values: np.ndarray, unit: str) -> str:
    """Such as ``44100 Hz x 12, 48000 Hz x 3``."""
    distinct, counts = np.unique(values, return_counts=True)
    pairs = sorted(zip(counts.tolist(), distinct.tolist(), strict=True), reverse=True)
    return ", ".join(f"{value} {unit} x {count}" for count, value in pairs)

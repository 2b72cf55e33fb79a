"""Looking through folders: which files are audio, and what is left alone.

One rule for all commands. Hidden names and what systems keep beside the user's files
(`.AppleDouble`, `.Trash-1000`, `@eaDir`) are left alone. Links are followed, each folder once, by
its own name rather than by a link's where it has both. A file is audio if its suffix says so, or,
under a name that says nothing, its first bytes; everything else is counted.

Names are bytes: a file system does not promise text.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from saga_sr.audio.repair import HEAD_BYTES, frame_header, id3_bytes, is_adts


def _suffixes(words: str) -> frozenset[str]:
    return frozenset(words.split())


AUDIO_SUFFIXES = _suffixes(
    """
    .wav .wave .flac .ogg .oga .opus .mp3 .mp2 .mpga .aif .aiff .aifc .au .snd .caf .w64
    .rf64 .bwf .voc .m4a .m4b .aac .wma .ac3 .eac3 .amr .mka .weba .ape .wv .tta .spx .dsf
    """
)
VIDEO_SUFFIXES = _suffixes(
    """
    .mp4 .m4v .mov .mkv .webm .avi .wmv .asf .flv .3gp .3g2 .mpg .mpeg .vob .mts .m2ts .ogv
    """
)
MEDIA_SUFFIXES = AUDIO_SUFFIXES | VIDEO_SUFFIXES
# For messages: what people have.
READABLE = ".wav .flac .ogg .opus .mp3 .m4a .aac .wma .aiff .au .caf .w64 .mp4 .mov .mkv .webm ..."
# Not opened: a corpus may have a million of them beside its audio.
_OTHER_SUFFIXES = _suffixes(
    """
    .txt .json .jsonl .csv .tsv .md .xml .html .yaml .yml .toml .ini .log .lrc .srt .vtt
    .cue .m3u .m3u8 .pls .lab .textgrid .jpg .jpeg .png .gif .bmp .webp .svg .tif .tiff
    .heic .avif .pdf .py .ipynb .npy .npz .pt .ckpt .safetensors .zip .gz .xz .zst .tar .mid
    .midi .exe .dll .so
    """
)
SYSTEM_NAMES = frozenset(
    (
        b"__MACOSX",
        b"@eaDir",
        b"$RECYCLE.BIN",
        b"RECYCLER",
        b"System Volume Information",
        b"lost+found",
    )
)
_LISTED_SUFFIXES = 6

_MAGIC = (  # (offset, bytes) of what libsndfile or FFmpeg decodes
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b"caff"),
    (0, b".snd"),
    (0, b"Creative Voice File"),
    (0, b"riff\x2e\x91\xcf\x11"),  # W64
    (0, b"NIST_1A"),
    (0, b"#!AMR"),
    (0, b"MAC "),
    (0, b"wvpk"),
    (0, b"TTA1"),
    (0, b"DSD "),
    (0, b"FLV\x01"),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF: WMA, WMV
    (4, b"ftypM4"),
    (4, b"ftypmp4"),
    (4, b"ftypiso"),
    (4, b"ftypqt"),
    (4, b"ftyp3g"),
    (4, b"ftypdash"),
    (4, b"ftypavc1"),
    (4, b"ftypMSNV"),
    (4, b"moov"),
)
_RIFF_KINDS = (b"WAVE", b"AVI ", b"AIFF", b"AIFC", b"8SVX")


@dataclass(frozen=True)
class FoundFile:
    """A file below a folder.

    Attributes:
        name: path below the folder, as the file system spells it.
        size: in bytes; -1 where the file system does not say (a broken link).
        mtime_ns: time of its last change.
    """

    name: bytes
    size: int
    mtime_ns: int


@dataclass
class Scan:
    """What is below a folder.

    Attributes:
        audio: sorted by name.
        others: suffix ("" for none) -> how many files were left alone.
        unreadable: (path, reason) of folders that could not be looked into.
    """

    audio: list[FoundFile] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def others_text(self) -> str:
        """Such as ``12 other files left alone: 10 .txt, 2 .jpg``; "" where there are none."""
        return others_text(self.others)


def others_text(others: Counter[str]) -> str:
    total = sum(others.values())
    if not total:
        return ""
    listed = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {suffix or 'without suffix'}" for suffix, count in listed[:_LISTED_SUFFIXES]]
    rest = sum(count for _, count in listed[_LISTED_SUFFIXES:])
    parts += [f"{rest} more"] if rest else []
    return f"{total} other file{'s' * (total > 1)} left alone: {', '.join(parts)}"


def scan_audio(
    folder: Path, excluded: Path | None = None, found: Callable[[], None] | None = None
) -> Scan:
    """Find the audio below a folder.

    Args:
        folder: to look through.
        excluded: a folder that is not looked into, such as that of the results.
        found: called for each audio file.
    """
    scan, root = Scan(), os.fsencode(folder)
    seen: set[tuple[int, int]] = set()
    if excluded is not None and excluded.is_dir():
        seen.add(_identity(os.fsencode(excluded)))
    pending: list[bytes] = [b""]
    links: list[bytes] = []  # looked into last: a folder's own name comes before a link's
    while pending or links:
        below = pending.pop() if pending else links.pop()
        path = os.path.join(root, below)
        try:
            identity = _identity(path)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            scan.unreadable.append((os.fsdecode(path), error.strerror or str(error)))
            continue
        for entry in entries:
            if entry.name.startswith(b".") or entry.name in SYSTEM_NAMES:
                continue
            name = os.path.join(below, entry.name)
            try:
                is_dir = entry.is_dir()
            except OSError as error:  # a link to itself
                scan.unreadable.append((os.fsdecode(entry.path), error.strerror or str(error)))
                continue
            if is_dir:
                (links if entry.is_symlink() else pending).append(name)
            elif is_audio_name_or_content(entry.path):
                scan.audio.append(FoundFile(name, *_size_and_time(entry)))
                if found is not None:
                    found()
            else:
                scan.others[suffix_of(entry.name)] += 1
    scan.audio.sort(key=lambda file: file.name)
    return scan


def suffix_of(name: bytes) -> str:
    """Such as ``.wav``, in lower case; "" where there is none."""
    return os.fsdecode(os.path.splitext(name)[1]).lower()


def is_audio_name_or_content(path: bytes) -> bool:
    """Whether a file's suffix, or else its content, is audio's or a film's."""
    suffix = suffix_of(path)
    if suffix in MEDIA_SUFFIXES:
        return True
    if suffix in _OTHER_SUFFIXES:
        return False
    try:
        if not os.path.isfile(path):  # a pipe would wait for a writer
            return False
        with open(path, "rb") as file:
            return is_audio_content(file)
    except OSError:
        return False


def is_audio_content(file: BinaryIO) -> bool:
    """Whether an open file begins like audio or a film; two bytes that a frame might begin with are
    believed only where the next frame stands behind it."""
    head = file.read(HEAD_BYTES)
    if any(head[at : at + len(magic)] == magic for at, magic in _MAGIC):
        return True
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX", b"FORM") and head[8:12] in _RIFF_KINDS:
        return True
    start = id3_bytes(head)
    if start:
        file.seek(start)
        head = file.read(HEAD_BYTES)
    if head[:1] == b"G" and _at(file, 188) == _at(file, 2 * 188) == b"G":
        return True  # an MPEG transport stream
    size = 0
    begins: Callable[[bytes], object] = frame_header
    if header := frame_header(head):
        size = header.size
    elif is_adts(head):
        size, begins = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5, is_adts
    file.seek(start + size)
    return size > 0 and bool(begins(file.read(HEAD_BYTES)))


def _at(file: BinaryIO, position: int) -> bytes:
    file.seek(position)
    return file.read(1)


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _size_and_time(entry: "os.DirEntry[bytes]") -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:  # a broken link, or gone again: reading its header will say so
        return -1, -1
    return status.st_size, status.st_mtime_ns

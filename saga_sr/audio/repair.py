"""What a file's header says wrongly, mended before libsndfile reads it.

libsndfile believes headers: of a WAV that a crashed recorder never closed (size 0), an MP3 with a
wrong frame count or with none, joined MP3s, chained OGGs and a FLAC written to a pipe it reads too
little or nothing. Here the structure of such a file is walked (chunks, pages, frame headers; no
samples are decoded), and libsndfile gets to read a `SplicedFile`: the same bytes behind a header
that is right. Length, start and random access are then libsndfile's own, exact ones.

    WAV    data size 0, or audio that goes on behind it          -> sizes up to the end
    MP3    no Xing header, a wrong one, or several (joined)      -> one that is right
    OGG    several streams one after the other (chained)         -> a part each
    FLAC   no length                                             -> the length, counted by decoding
"""

import bisect
import io
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

HEAD_BYTES = 64
LEAST_NEWS_S = 0.1  # a length that was off by less is mended without a word
_LAYOUTS_KEPT = 4096

Piece = bytes | tuple[int, int]  # bytes of our own, or a stretch [start, stop) of the file
NOTES = {
    "cut_off": "it is cut off: {missing_s:.1f} s that its header promises are not there",
    "never_finished": "its header was never finished: it says {told_s:.1f} s, {there_s:.1f} s are "
    "there and are read",
    "no_length": "its header holds no length; decoding gives {there_s:.1f} s",
    "wrong_length": "its header says {told_s:.1f} s, {there_s:.1f} s are there and are read",
    "joined": "{count} MP3s joined into one, all of them read ({there_s:.1f} s)",
    "chained": "{count} recordings one after the other, all of them read",
    "begins_damaged": "its first packets are damaged and left out ({reason})",
    "ends_damaged": "its last packets are damaged and left out ({reason})",
}


@dataclass(frozen=True)
class Note:
    """What was wrong with a file and is mended while reading; ``str`` says it in English.

    Attributes:
        kind: of `NOTES`.
        values: what the sentence needs: lengths in seconds, a count, FFmpeg's reason.
    """

    kind: str
    values: dict[str, float | str]

    def __str__(self) -> str:
        return NOTES[self.kind].format(**self.values)


def note(kind: str, **values: float | str) -> tuple[Note, ...]:
    return (Note(kind, values),)


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes:
        parts: one stream for libsndfile each, in pieces; none: the file as it is.
        notes: what was mended.
        for_ffmpeg: libsndfile must not try: it would take the file for what it is not.
        flac_start: where a FLAC begins whose length only decoding tells (`flac_pieces`).
        padded_from: the length that a WAV of whole blocks tells; what follows is padding.
    """

    parts: tuple[tuple[Piece, ...], ...] = ()
    notes: tuple[Note, ...] = ()
    for_ffmpeg: bool = False
    flac_start: int | None = None
    padded_from: int | None = None


AS_IT_IS = Layout()


def layout_of(path: Path | str | bytes) -> Layout:
    """Look at a file's structure; what was seen is kept while size and time stay the same.

    Raises:
        OSError: the file cannot be read, or its parts do not fit together.
    """
    status = os.stat(path)
    return _layout(os.fsencode(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=_LAYOUTS_KEPT)
def _layout(path: bytes, size: int, mtime_ns: int) -> Layout:
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        start = id3_bytes(head)
        if start:
            file.seek(start)
            head = file.read(HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _wav_layout(file, size)
        if head[:4] == b"fLaC":
            return _flac_layout(file, start)
        if head[:4] == b"OggS":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _ogg_layout(data)
        if is_adts(head):
            return Layout(for_ffmpeg=True)
        if start or frame_header(head):
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _mp3_layout(data, start)
    return AS_IT_IS


class SplicedFile(io.RawIOBase):
    """Pieces of a file, and bytes that are not in it, read as one file."""

    def __init__(self, path: Path | str | bytes, pieces: Sequence[Piece]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  (closed with this one)
        self._pieces = pieces
        lengths = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces]
        self._starts = [sum(lengths[:k]) for k in range(len(lengths) + 1)]
        self._position = 0
        self.name = "spliced"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}
        self._position = max(base[whence] + offset, 0)
        return self._position

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._starts[-1]:
            read = self._read_piece(len(view) - done)
            if not read:
                break
            view[done : done + len(read)] = read
            done += len(read)
            self._position += len(read)
        return done

    def _read_piece(self, count: int) -> bytes:
        number = bisect.bisect_right(self._starts, self._position) - 1
        piece, offset = self._pieces[number], self._position - self._starts[number]
        count = min(count, self._starts[number + 1] - self._position)
        if isinstance(piece, bytes):
            return piece[offset : offset + count]
        self._file.seek(piece[0] + offset)
        return self._file.read(count)

    def close(self) -> None:
        self._file.close()
        super().close()


# ---------------------------------------------------------------------------- WAV
_UNKNOWN_SIZE = 0xFFFFFFFF  # or one of 4 GiB and more: libsndfile reads to the end of the file
_STREAMED_SIZES = range(0x7FFF0000, 1 << 32)  # what is written where the length is not known yet
_MP3_IN_WAV = 0x55
_BLOCK_ENCODINGS = (0x02, 0x11, 0x31)  # ADPCM of Microsoft and IMA, GSM 6.10
_LEAST_LOST_BYTES = 1024  # fewer behind the audio are somebody's odd tag, not audio


def _wav_layout(file: io.BufferedReader, size: int) -> Layout:
    position, encoding, bytes_per_s, told_frames = 12, 0, 0, None
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"fmt ":
            encoding, _, _, bytes_per_s = struct.unpack("<HHII", file.read(12).ljust(12, b"\0"))
        if name == b"fact" and encoding in _BLOCK_ENCODINGS:
            told_frames = int.from_bytes(file.read(4), "little")
        if name == b"data":
            if encoding == _MP3_IN_WAV:
                return Layout(for_ffmpeg=True)  # libsndfile guesses its length
            layout = _data_layout(file, size, position, length, max(bytes_per_s, 1))
            return layout if layout != AS_IT_IS else Layout(padded_from=told_frames)
        position += 8 + length + length % 2
    return AS_IT_IS


def _data_layout(
    file: io.BufferedReader, size: int, position: int, length: int, bytes_per_s: int
) -> Layout:
    begin = position + 8
    there = size - begin
    if length > there:
        if length in _STREAMED_SIZES:
            return AS_IT_IS
        missing_s = (length - there) / bytes_per_s
        if missing_s <= LEAST_NEWS_S:
            return AS_IT_IS
        return Layout(notes=note("cut_off", missing_s=missing_s))
    if there - length < _LEAST_LOST_BYTES or _chunks_follow(file, begin + length, size):
        return AS_IT_IS
    header = file_bytes(file, 0, begin)
    riff_size, data_size = (min(known, _UNKNOWN_SIZE) for known in (size - 8, there))
    mended = header[:4] + struct.pack("<I", riff_size) + header[8:-4]
    notes = note("never_finished", told_s=length / bytes_per_s, there_s=there / bytes_per_s)
    return Layout(((mended + struct.pack("<I", data_size), (begin, size)),), notes)


def _chunks_follow(file: io.BufferedReader, position: int, size: int) -> bool:
    """Whether what comes behind the audio is chunks up to the end."""
    position += position % 2
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if not all(32 <= letter < 127 for letter in name) or length > size - position:
            return False
        position += 8 + length + length % 2
    return True


def file_bytes(file: io.BufferedReader, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)


# ---------------------------------------------------------------------------- FLAC
_FLAC_LENGTH_ENDS = 26  # bytes from the begin of the file


def _flac_layout(file: io.BufferedReader, start: int) -> Layout:
    """STREAMINFO tells the length in 36 bits: 0 is an unknown one."""
    info = file_bytes(file, start, start + _FLAC_LENGTH_ENDS)
    if len(info) < _FLAC_LENGTH_ENDS or int.from_bytes(info[-8:], "big") & ((1 << 36) - 1):
        return AS_IT_IS
    return Layout(flac_start=start)


def flac_pieces(path: Path | str | bytes, start: int, frames: int) -> tuple[Piece, ...]:
    """A FLAC that begins at ``start`` and tells no length, with its length."""
    with open(path, "rb") as file:
        info = file_bytes(file, start, start + _FLAC_LENGTH_ENDS)
    words = int.from_bytes(info[-8:], "big") | frames
    behind = (start + _FLAC_LENGTH_ENDS, os.path.getsize(path))
    return (info[:-8] + words.to_bytes(8, "big"), behind)


# ---------------------------------------------------------------------------- OGG
_BEGINS, _PAGE_HEADER = 2, 27


def _ogg_layout(data: mmap.mmap) -> Layout:
    """A page that begins a stream, after one that does not, begins the next link of a chain."""
    links, position, in_body = [0], 0, False
    while 0 <= position <= len(data) - _PAGE_HEADER:
        if data[position : position + 4] != b"OggS":
            position = data.find(b"OggS", position + 1)
            continue
        begins = bool(data[position + 5] & _BEGINS)
        if begins and in_body:
            links.append(position)
        in_body = not begins
        segments = position + _PAGE_HEADER
        count = data[position + 26]
        position = segments + count + sum(data[segments : segments + count])
    if len(links) == 1:
        return AS_IT_IS
    ends = [*links[1:], len(data)]
    parts = tuple(((start, stop),) for start, stop in zip(links, ends, strict=True))
    return Layout(parts, note("chained", count=len(links)))


# ---------------------------------------------------------------------------- MPEG audio
_KBIT_S = {  # version 1: layers 1, 2, 3; versions 2 and 2.5: layer 1, layers 2 and 3
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_FRAME_SAMPLES = {(1, 1): 384, (1, 2): 1152, (1, 3): 1152, (2, 1): 384, (2, 2): 1152, (2, 3): 576}
_DECODER_DELAY = 529  # samples; what decoders remove beside the encoder's delay
_INFO_BYTES = 192  # of a Xing and LAME header with frames and bytes, but without a table


@dataclass(frozen=True)
class FrameHeader:
    """The header of a frame of MPEG audio.

    Attributes:
        size: of the frame, in bytes.
        samples: in it, per channel.
        sample_rate: Hz.
        channels: 1 or 2.
        side_bytes: from the frame's begin to where a Xing header would be (layer 3).
        layer: 1, 2 or 3.
    """

    size: int
    samples: int
    sample_rate: int
    channels: int
    side_bytes: int
    layer: int


@lru_cache(maxsize=4096)
def _header(word: bytes) -> FrameHeader | None:
    """What 4 bytes say, or None where they begin no frame (a free bit rate is not read)."""
    first, second, third, fourth = word
    version_bits, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bitrate, rate = third >> 4, third >> 2 & 3
    if first != 0xFF or second < 0xE0 or version_bits == 1 or layer == 4:
        return None
    if bitrate in (0, 15) or rate == 3 or fourth & 3 == 2:
        return None
    version = 1 if version_bits == 3 else 2
    sample_rate = _RATES[version_bits][rate]
    samples = _FRAME_SAMPLES[version, layer]
    slot = 4 if layer == 1 else 1
    slots = samples // 8 // slot * _KBIT_S[version, layer][bitrate] * 1000 // sample_rate
    mono = fourth >> 6 == 3
    side = (17 if mono else 32) if version == 1 else (9 if mono else 17)
    crc = 0 if second & 1 else 2
    return FrameHeader(
        (slots + (third >> 1 & 1)) * slot,
        samples,
        sample_rate,
        1 if mono else 2,
        4 + crc + side,
        layer,
    )


def frame_header(head: bytes) -> FrameHeader | None:
    """The MPEG audio frame that ``head`` begins with, or None."""
    return _header(bytes(head[:4])) if len(head) >= 4 else None


def is_adts(head: bytes) -> bool:
    """Whether ``head`` begins a frame of raw AAC."""
    return len(head) >= 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13


def id3_bytes(head: bytes) -> int:
    """Length of the ID3v2 tag that ``head`` begins with; 0 without one."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


@dataclass
class _Walk:
    """The frames of a file: how many, where, and the headers among them that tell a length."""

    first: FrameHeader
    first_word: bytes
    frames: int = 0
    told: "list[_Info]" = field(default_factory=list)
    stretches: list[tuple[int, int]] = field(default_factory=list)

    def add(self, position: int, size: int) -> None:
        self.frames += 1
        if self.stretches and self.stretches[-1][1] == position:
            self.stretches[-1] = (self.stretches[-1][0], position + size)
        else:
            self.stretches.append((position, position + size))


@dataclass(frozen=True)
class _Info:
    """A Xing, Info or VBRI header.

    Attributes:
        frames: what it says; 0 where it does not.
        delay: of the encoder, in samples; None where a LAME header does not tell it.
    """

    frames: int
    delay: int | None


def _mp3_layout(data: mmap.mmap, start: int) -> Layout:
    walk = _walk(data, start)
    if walk is None:
        return Layout(for_ffmpeg=is_adts(data[start : start + 7]))
    told = walk.told[0] if walk.told else None
    audio_bytes = sum(stop - begin for begin, stop in walk.stretches)
    if told is not None and len(walk.told) == 1 and told.frames == walk.frames:
        return AS_IT_IS
    notes = _mp3_notes(walk, told)
    if told is None or told.delay is None:
        # libsndfile guesses a length that no header tells, FFmpeg counts
        return Layout((tuple(walk.stretches),), notes, for_ffmpeg=True)
    return Layout(((_info_frame(walk, audio_bytes, told.delay), *walk.stretches),), notes)


def _mp3_notes(walk: _Walk, told: "_Info | None") -> tuple[Note, ...]:
    frame_s = walk.first.samples / walk.first.sample_rate
    length_s = walk.frames * frame_s
    if len(walk.told) > 1:
        return note("joined", count=len(walk.told), there_s=length_s)
    if told is None or abs(told.frames - walk.frames) * frame_s <= LEAST_NEWS_S:
        return ()
    return note("wrong_length", told_s=told.frames * frame_s, there_s=length_s)


def _walk(data: mmap.mmap, start: int) -> _Walk | None:
    """Go from frame to frame; None where two frames in a row are nowhere found.

    Raises:
        OSError: the sample rate or the number of channels changes on the way.
    """
    walk: _Walk | None = None
    position: int | None = start
    while position is not None and position + 4 <= len(data):
        word = data[position : position + 4]
        header = _header(word)
        usual = walk is not None and header is not None and _is_like(header, walk.first)
        if header is None or not (usual or _continues(data, position, header)):
            position = _next_frame(data, position)
            continue
        if position + header.size > len(data):
            break  # the last frame is cut off
        walk = walk or _Walk(header, word)
        if not usual:
            _check_same(walk, header)
        info = _info_of(data, position, header)
        if info is not None:
            walk.told.append(info)
        else:
            walk.add(position, header.size)
        position += header.size
    return walk if walk and walk.frames else None


def _is_like(header: FrameHeader, other: FrameHeader) -> bool:
    kind = (header.sample_rate, header.channels, header.layer)
    return kind == (other.sample_rate, other.channels, other.layer)


def _check_same(walk: _Walk, header: FrameHeader) -> None:
    first = walk.first
    if not _is_like(header, first):
        at_s = walk.frames * first.samples / first.sample_rate
        raise OSError(
            f"at {at_s:.1f} s it changes from {first.sample_rate} Hz, {first.channels} channels to "
            f"{header.sample_rate} Hz, {header.channels}: joined from unlike files; do them apart"
        )


def _continues(data: mmap.mmap, position: int, header: FrameHeader) -> bool:
    """Whether a frame of the same kind, a tag or the end of the file comes behind a frame."""
    behind = position + header.size
    after = data[behind : behind + 4]
    if len(after) < 4 or after[:3] in (b"TAG", b"ID3") or after == b"APET":
        return True
    following = _header(after)
    return (
        following is not None
        and following.sample_rate == header.sample_rate
        and following.layer == header.layer
    )


def _next_frame(data: mmap.mmap, position: int) -> int | None:
    """Where the next frame begins that another one follows: over tags and over garbage."""
    tag = id3_bytes(data[position : position + 10])
    if tag:
        return position + tag
    while True:
        position = data.find(b"\xff", position + 1)
        if position < 0 or position + 4 > len(data):
            return None
        header = _header(data[position : position + 4])
        if header and position + header.size <= len(data) and _continues(data, position, header):
            return position


def _info_of(data: mmap.mmap, position: int, header: FrameHeader) -> _Info | None:
    """The Xing, Info or VBRI header that a frame is in place of audio."""
    if header.layer != 3:
        return None
    for at in (position + header.side_bytes, position + header.side_bytes - 2):
        if data[at : at + 4] in (b"Xing", b"Info"):
            return _xing(data[at : position + header.size])
    at = position + 36
    if data[at : at + 4] == b"VBRI" and header.size >= 36 + 18:
        return _Info(int.from_bytes(data[at + 14 : at + 18], "big"), None)
    return None


def _xing(body: bytes) -> _Info:
    flags = int.from_bytes(body[4:8], "big")
    frames = int.from_bytes(body[8:12], "big") if flags & 1 else 0
    at = 8 + sum(length for flag, length in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & flag)
    lame = body[at : at + 36]
    delay = None
    if len(lame) >= 24 and lame[:4].isalnum():
        delay = int.from_bytes(lame[21:24], "big") >> 12
    return _Info(frames, delay)


def _info_frame(walk: _Walk, audio_bytes: int, delay: int) -> bytes:
    """A frame with a Xing header that is right; padding that is not to be trusted stays audible."""
    first, second, third, fourth = walk.first_word
    # The smallest frame that the header fits into, without a checksum.
    words = [bytes((first, second | 1, rate << 4 | third & 0x0C, fourth)) for rate in range(1, 15)]
    headers = [(word, header) for word in words if (header := _header(word))]
    word, header = next(
        pair for pair in headers if pair[1].size >= pair[1].side_bytes + _INFO_BYTES
    )
    total = header.size + audio_bytes
    lame = bytearray(36)
    lame[:9] = b"LAME3.100"
    lame[21:24] = (delay << 12).to_bytes(3, "big")
    tag = b"Xing" + struct.pack(">III", 3, walk.frames, total) + bytes(lame)
    return (word + bytes(header.side_bytes - 4) + tag).ljust(header.size, b"\0")

"""The one door that opens audio: any file, by content, at its true length, read at any place.

libsndfile reads what it can: with a mended header where the file's own is wrong
(`saga_sr.audio.repair`), and by reading on where an encoding cannot seek (GSM 6.10). FFmpeg decodes
the rest (`saga_sr.audio.decoder`).
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from saga_sr.audio.decoder import DecodedFile, Known, UnknownFormatError, measure
from saga_sr.audio.repair import Layout, Note, Piece, SplicedFile, flac_pieces, layout_of, note
from saga_sr.support.files import native_name

BLOCK_FRAMES = 1 << 16
END_FRAMES = 4096  # that must be there
# Decoded and dropped before what a seek in an MP3 or an OGG leads to: an MP3 frame needs up to ten
# earlier ones (libmpg123 takes four), and libsndfile joins a Vorbis block to what it read last.
PREROLL_FRAMES = 16 * 1152
_MAX_PADDING_FRAMES = 4096  # ADPCM blocks hold some 500 to 2000 frames
# libsndfile's errors are RuntimeErrors; a damaged MP3 can make it ask numpy for -3 samples.
READ_ERRORS = (OSError, RuntimeError, ValueError)


class _Part(Protocol):
    """What audio is read from: `soundfile.SoundFile`'s shape, as far as it is needed."""

    frames: int
    sample_rate: int
    channels: int

    def read(self, first: int, count: int) -> np.ndarray: ...
    def close(self) -> None: ...


class AudioFile:
    """An open audio file; close it, or use it in a ``with``.

    Attributes:
        frames: the true length, in samples per channel.
        sample_rate: Hz.
        channels: how many.
        exact_seeks: whether its time stamps can be trusted (always, for libsndfile's files).
        notes: what was wrong with the file and was mended.
    """

    def __init__(
        self, parts: Sequence[_Part], notes: tuple[Note, ...] = (), exact_seeks: bool = True
    ) -> None:
        self.parts = list(parts)
        first = self.parts[0]
        self.sample_rate, self.channels = first.sample_rate, first.channels
        self.frames = sum(part.frames for part in self.parts)
        self.notes, self.exact_seeks = notes, exact_seeks

    @property
    def known(self) -> Known:
        return Known(
            self.frames, self.sample_rate, self.channels, self.exact_seeks, is_plain=not self.notes
        )

    def read(self, first: int, count: int) -> np.ndarray:
        """Exactly ``count`` frames from ``first``, float32 [count, C].

        Raises:
            OSError, RuntimeError, ValueError: they cannot be read, or the file has fewer.
        """
        pieces: list[np.ndarray] = []
        begin, wanted = 0, count
        for part in self.parts:
            inside = max(first - begin, 0)
            here = max(min(wanted, part.frames - inside), 0)
            if here:
                piece = part.read(inside, here)
                pieces.append(piece)
                if len(piece) != here:
                    break
                wanted, first = wanted - here, first + here
            begin += part.frames
        samples = np.concatenate(pieces) if pieces else np.zeros((0, self.channels), np.float32)
        if len(samples) != count:
            raise OSError(f"only {len(samples)} of {count} frames from frame {first}: truncated?")
        return samples

    def blocks(self, size: int = BLOCK_FRAMES) -> Iterator[np.ndarray]:
        """All frames in order, float32 [n, C]."""
        for first in range(0, self.frames, size):
            yield self.read(first, min(size, self.frames - first))

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_audio(path: Path | str | bytes, known: Known | None = None) -> AudioFile:
    """Open a file by its content.

    Args:
        path: any name that the file system allows.
        known: from an earlier look; without it, what only decoding can tell is measured.

    Raises:
        OSError, RuntimeError, ValueError: it cannot be read as audio; `reason` puts them in words.
    """
    if known is not None and known.is_plain and (file := _unchanged(path, known)) is not None:
        return file
    if os.path.getsize(path) == 0:
        raise OSError("the file is empty (0 bytes)")
    layout = layout_of(path)
    if layout.flac_start is not None:
        layout = _flac_with_length(path, layout.flac_start, known)
    unread: Exception = OSError("it cannot be decoded")
    if not layout.for_ffmpeg:
        try:
            return _by_libsndfile(path, layout)
        except soundfile.LibsndfileError as error:
            unread = error
    return _by_ffmpeg(path, layout, known, unread)


def reason(error: Exception) -> str:
    """What one of `READ_ERRORS` says, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(getattr(error, "error_string", error)).strip() or type(error).__name__


def _unchanged(path: Path | str | bytes, known: Known) -> AudioFile | None:
    """The file as libsndfile sees it, where that is what is known: nothing is measured again."""
    try:
        file = AudioFile([_SoundFilePart(path)])
    except soundfile.LibsndfileError:
        return None
    if (file.frames, file.sample_rate, file.channels) == (
        known.frames,
        known.sample_rate,
        known.channels,
    ):
        return file
    file.close()
    return None


def _by_libsndfile(path: Path | str | bytes, layout: Layout) -> AudioFile:
    parts: list[_SoundFilePart] = []
    try:
        for pieces in layout.parts or ((),):
            parts.append(_SoundFilePart(path, pieces))
        kinds = {(part.sample_rate, part.channels) for part in parts}
        if len(kinds) > 1:
            found = ", ".join(f"{rate} Hz with {count} channels" for rate, count in sorted(kinds))
            raise OSError(f"it is joined from unlike recordings ({found}); do them apart")
        if layout.padded_from is not None:
            parts[0].leave_out_padding(layout.padded_from)
        return AudioFile(parts, layout.notes)
    except BaseException:
        for part in parts:
            part.close()
        raise


def _flac_with_length(path: Path | str | bytes, start: int, known: Known | None) -> Layout:
    known = known or measure(path).known
    notes = note("no_length", there_s=known.frames / known.sample_rate)
    return Layout((flac_pieces(path, start, known.frames),), notes)


def _by_ffmpeg(
    path: Path | str | bytes, layout: Layout, known: Known | None, unread: Exception
) -> AudioFile:
    pieces = layout.parts[0] if layout.parts else ()
    notes = layout.notes
    if known is None:
        try:
            found = measure(path, pieces)
        except UnknownFormatError as error:
            raise unread from error
        known = found.known
        notes += found.notes
    file = DecodedFile(path, known, pieces)
    return AudioFile([file], notes, known.exact_seeks)


def check_end(file: AudioFile) -> None:
    """Read the last frames of a file that libsndfile opened: a truncated file often has a faultless
    header. (One frame is not enough: behind the end of a short Vorbis stream libsndfile finds a few
    that are none.) What was measured or walked (MP3) is known to be whole.

    Raises:
        OSError, RuntimeError, ValueError: it is not there.
    """
    for part in file.parts:
        if isinstance(part, _SoundFilePart) and not part.is_mp3:
            with part.again() as other:
                count = min(other.frames, END_FRAMES)
                if missing := count - len(other.read(other.frames - count, count)):
                    found = f"{missing} of its last {count} frames are missing"
                    raise OSError(f"it is truncated: {found}")


class _Sequential(soundfile.SoundFile):
    """Without the seek that soundfile does after each read: an MP3's next frame would lack the
    earlier ones that it needs, and be damaged."""

    def seekable(self) -> bool:
        return False


class _SoundFilePart:
    """One stream of libsndfile's, also one that cannot seek: that is read on, or from its start."""

    def __init__(self, path: Path | str | bytes, pieces: Sequence[Piece] = ()) -> None:
        self._path, self._pieces = path, pieces
        self._open()
        self.frames, self.sample_rate = self._file.frames, self._file.samplerate
        self.channels = self._file.channels
        self.is_mp3 = self._file.subtype.startswith("MPEG")
        self._is_vorbis = self._file.subtype == "VORBIS"
        self._can_seek = soundfile.SoundFile.seekable(self._file)

    def _open(self) -> None:
        self._spliced = SplicedFile(self._path, self._pieces) if self._pieces else None
        try:
            self._file = _Sequential(self._spliced or native_name(self._path))
        except BaseException:
            if self._spliced:
                self._spliced.close()
            raise
        self._position = 0

    def leave_out_padding(self, told_frames: int) -> None:
        """End where the header says, if that is in the last block or the one before."""
        if 0 <= self.frames - told_frames <= _MAX_PADDING_FRAMES and told_frames > 0:
            self.frames = told_frames

    def again(self) -> "_SoundFilePart":
        """The same, opened once more."""
        return _SoundFilePart(self._path, self._pieces)

    def read(self, first: int, count: int) -> np.ndarray:
        if first != self._position:
            self._go_to(first)
        samples = self._file.read(count, dtype="float32", always_2d=True)
        self._position = first + len(samples)
        return samples

    def _go_to(self, first: int) -> None:
        if self._can_seek:
            needs_preroll = self.is_mp3 or (self._is_vorbis and self._position > 0)
            self._position = max(first - PREROLL_FRAMES, 0) if needs_preroll else first
            self._file.seek(self._position)
        elif first < self._position:
            self.close()
            self._open()
        while self._position < first:
            wanted = min(first - self._position, BLOCK_FRAMES)
            samples = self._file.read(wanted, dtype="float32", always_2d=True)
            self._position += len(samples)
            if not len(samples):
                raise OSError(
                    f"it ends at frame {self._position}, before frame {first}: truncated?"
                )

    def close(self) -> None:
        self._file.close()
        if self._spliced:
            self._spliced.close()

    def __enter__(self) -> "_SoundFilePart":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

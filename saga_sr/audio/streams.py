"""Audio of any length as streams: read, resampled, mapped with context, written.

Nothing here holds a whole file. A source can be read several times, each time from its start, which
is cheaper than keeping what one pass has read until a slower one needs it. `map_with_context` runs
a local operation (decoding, filtering) over a stream in pieces so that the result is that of the
whole. `write_audio` writes to a temporary file that takes its place only when it is complete.

Audio moves as float32 tensors [C, n].
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from saga_sr.audio.decoder import NO_SOUND
from saga_sr.audio.file import read_header, resampled_length
from saga_sr.audio.reader import BLOCK_FRAMES, READ_ERRORS, open_audio, reason
from saga_sr.support.errors import UserError
from saga_sr.support.files import atomic_path, native_name

_RIFF_LIMIT_BYTES = (1 << 32) - (1 << 16)  # sizes in a WAV file are 32-bit numbers
Encoding = Literal["16", "24", "float"]
_SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
ENCODINGS = {
    ".wav": ("float", "24", "16"),
    ".flac": ("24", "16"),
}  # suffix -> allowed, default first


# ---------------------------------------------------------------------------- sources
class AudioSource(Protocol):
    """Audio that can be read from its start as often as needed."""

    name: str
    sample_rate: int
    channels: int
    frames: int

    def blocks(self) -> Iterator[np.ndarray]:
        """All frames in order, float32 [n, C] blocks at the source's own rate."""
        ...


class ArraySource:
    """Audio in memory.

    Args:
        audio: [C, T].
        sample_rate: Hz.
    """

    def __init__(self, audio: Tensor, sample_rate: int) -> None:
        self.name, self.sample_rate = "the audio", sample_rate
        self.channels, self.frames = audio.shape
        self._frames = audio.detach().float().cpu().T.contiguous().numpy()

    def blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.frames, BLOCK_FRAMES):
            yield self._frames[start : start + BLOCK_FRAMES]


class ChannelSource:
    """One channel of a source."""

    def __init__(self, source: AudioSource, channel: int) -> None:
        self.name, self.sample_rate = source.name, source.sample_rate
        self.channels, self.frames = 1, source.frames
        self._source, self._channel = source, channel

    def blocks(self) -> Iterator[np.ndarray]:
        for block in self._source.blocks():
            yield block[:, self._channel, None]


class SilentFilmError(UserError):
    """A film without sound, or a picture."""


class FileSource:
    """An audio file, or the sound of a film (`saga_sr.audio.reader`).

    Attributes:
        notes: what was wrong with the file and is mended while reading.

    Raises:
        UserError: the file is missing, unreadable, empty or truncated; `SilentFilmError` where it
            has no sound.
    """

    def __init__(self, path: Path) -> None:
        header = read_header(path)
        if header.problem == NO_SOUND:
            raise SilentFilmError(f"{path}: {NO_SOUND}")
        if header.problem:
            raise UserError(f"{path}: it cannot be read as audio: {header.problem}")
        self.name, self._path, self._known = str(path), path, header.known
        self.sample_rate, self.channels, self.frames = (
            header.sample_rate,
            header.channels,
            header.frames,
        )
        self.notes = header.notes

    def blocks(self) -> Iterator[np.ndarray]:
        done = 0
        try:
            with open_audio(self._path, self._known) as file:
                for block in file.blocks(BLOCK_FRAMES):
                    done += len(block)
                    yield block
        except READ_ERRORS as error:
            at_s = done / self.sample_rate
            raise UserError(f"{self.name}: unreadable at {at_s:.1f} s ({reason(error)})") from error


def resampled(source: AudioSource, sample_rate: int) -> Iterator[Tensor]:
    """The source at ``sample_rate``: pieces [C, n] of together round(frames x rate / own rate).

    Raises:
        UserError: a sample is NaN or infinite, or the source cannot be read.
    """
    left = resampled_length(source.frames, source.sample_rate, sample_rate)
    for piece in _resampled_blocks(source, sample_rate):
        piece = piece[:left]
        left -= len(piece)
        if len(piece):
            yield torch.from_numpy(np.ascontiguousarray(piece.T))
    if left:  # the resampler's own rounding; at most a sample or two
        yield torch.zeros(source.channels, left)


def _resampled_blocks(source: AudioSource, sample_rate: int) -> Iterator[np.ndarray]:
    if source.sample_rate == sample_rate:
        yield from _finite(source)
        return
    stream = soxr.ResampleStream(source.sample_rate, sample_rate, source.channels, quality="HQ")
    for block in _finite(source):
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, source.channels), np.float32), last=True)


def _finite(source: AudioSource) -> Iterator[np.ndarray]:
    done = 0
    for block in source.blocks():
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            at_s = (done + int(bad[0])) / source.sample_rate
            raise UserError(f"{source.name}: a sample at {at_s:.3f} s is NaN or infinite")
        done += len(block)
        yield block


# ---------------------------------------------------------------------------- in between
def map_with_context(
    pieces: Iterable[Tensor],
    function: Callable[[Tensor], Tensor],
    context: int,
    scale: int = 1,
) -> Iterator[Tensor]:
    """``function`` of a whole stream, piece by piece.

        kept        |==context==|
        + a piece               |==========ready==========|==context==|
        function(all), of which  `------ is yielded -----'

    Args:
        pieces: [..., n] each, consecutive.
        function: [..., n] -> [..., n x scale]; an output depends on inputs up to ``context`` away.
        context: positions kept on either side.
        scale: outputs per position.

    Yields:
        Consecutive pieces of ``function``'s result, as if it had seen the whole stream at once.
    """
    return map_located(pieces, lambda held, _start: function(held), context, scale)


def map_located(
    pieces: Iterable[Tensor],
    function: Callable[[Tensor, int], Tensor],
    context: int,
    scale: int = 1,
) -> Iterator[Tensor]:
    """`map_with_context` for a function that also wants the position of what it is given."""
    held: Tensor | None = None
    start = 0  # of ``held``
    done = 0  # positions of ``held`` whose output is out; they stay as context
    for piece in pieces:
        held = piece if held is None else torch.cat([held, piece], dim=-1)
        stop = held.shape[-1] - context
        if stop <= done:
            continue
        yield function(held, start)[..., done * scale : stop * scale]
        forgotten = max(stop - context, 0)
        held, done, start = held[..., forgotten:], stop - forgotten, start + forgotten
    if held is not None and held.shape[-1] > done:
        yield function(held, start)[..., done * scale :]


class Reader:
    """Takes samples from a stream of pieces [..., n] as they are asked for, in any portions."""

    def __init__(self, pieces: Iterator[Tensor]) -> None:
        self._pieces = pieces
        self._held: Tensor | None = None

    def peek(self, count: int) -> Tensor:
        """The next ``count`` samples, fewer where the stream ends; they can be asked for again.

        Raises:
            ValueError: the stream has no pieces at all.
        """
        parts = [] if self._held is None else [self._held]
        have = sum(part.shape[-1] for part in parts)
        while have < count and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            have += piece.shape[-1]
        if not parts:
            raise ValueError("an empty stream")
        self._held = torch.cat(parts, dim=-1)
        return self._held[..., :count]

    def skip(self, count: int) -> None:
        """Forget the next ``count`` samples."""
        self.peek(count)
        assert self._held is not None
        self._held = self._held[..., count:].clone()  # a view would keep what is forgotten

    def take(self, count: int) -> Tensor:
        """The next ``count`` samples, fewer where the stream ends."""
        samples = self.peek(count)
        self.skip(count)
        return samples


# ---------------------------------------------------------------------------- files out
@dataclass(frozen=True)
class WrittenAudio:
    """What was written.

    Attributes:
        frames: its length.
        peak: largest magnitude before encoding; 1.0 is full scale.
        over: samples beyond full scale. The PCM encodings clip them, float keeps them.
    """

    frames: int
    peak: float
    over: int


def write_audio(
    path: Path,
    pieces: Iterable[Tensor],
    sample_rate: int,
    channels: int,
    frames: int,
    encoding: str,
) -> WrittenAudio:
    """Write a stream of [C, n] pieces as WAV or FLAC, by the suffix; whole or not at all.

    Args:
        path: ends in .wav or .flac.
        pieces: audio; consumed while writing.
        sample_rate: Hz.
        channels: C.
        frames: how many there will be; a WAV file too large for RIFF is written as RF64.
        encoding: ``16``, ``24`` (bit PCM) or ``float`` (32 bit, WAV only).

    Raises:
        UserError: the file cannot be written, for example because the disk is full, or a sample is
            NaN or infinite.
    """
    large = frames * channels * 4 > _RIFF_LIMIT_BYTES
    container = "FLAC" if path.suffix.lower() == ".flac" else "RF64" if large else "WAV"
    written, peak, over = 0, 0.0, 0
    with atomic_path(path, locked=True) as temporary:
        try:
            name, subtype = native_name(temporary), _SUBTYPES[encoding]
            with soundfile.SoundFile(
                name, "w", sample_rate, channels, subtype, format=container
            ) as file:
                for piece in pieces:
                    magnitude = piece.abs()
                    if not magnitude.isfinite().all():
                        raise UserError(
                            f"{path}: not written: the result is NaN or infinite from "
                            f"{written / sample_rate:.2f} s on"
                        )
                    peak = max(peak, magnitude.max().item())
                    over += int((magnitude > 1).sum())
                    _write(file, piece)
                    written += piece.shape[-1]
            complete = soundfile.info(name).frames == written
        except (soundfile.LibsndfileError, _ShortWriteError) as error:
            raise UserError(f"{path}: it cannot be written (disk full?): {error}") from error
        if not complete:
            raise UserError(f"{path}: it cannot be written completely (disk full?)")
    return WrittenAudio(written, peak, over)


class _ShortWriteError(OSError):
    pass


def _write(file: soundfile.SoundFile, piece: Tensor) -> None:
    try:
        file.write(piece.T.cpu().numpy())
    except AssertionError as error:  # how soundfile says that fewer frames were written
        raise _ShortWriteError("a block was written only in part") from error

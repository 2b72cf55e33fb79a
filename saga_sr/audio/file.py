"""One audio file: its header, and any crop of it at any rate without decoding the whole."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import soxr

from saga_sr.support.errors import UserError

EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"})
READ_ATTEMPTS = 3
RETRY_DELAY_S = 0.5  # before the second attempt; doubled before each further one
CONTEXT_SAMPLES = (
    256  # at the lower of the two rates; soxr's HQ filter reaches about 160 (measured)
)

# libsndfile's errors are RuntimeErrors; a damaged MP3 can make it ask numpy for -3 samples.
READ_ERRORS = (OSError, RuntimeError, ValueError)
Read = TypeVar("Read")
logger = logging.getLogger(__name__)


# --- one file -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class AudioHeader:
    """What a file says about itself; ``problem`` is empty where the file can be used."""

    frames: int = 0
    sample_rate: int = 0
    channels: int = 0
    problem: str = ""


def read_header(path: Path | str | bytes) -> AudioHeader:
    """Read a header and the last frame: a truncated file often has a faultless header."""
    try:
        if os.path.getsize(path) == 0:
            return AudioHeader(problem="the file is empty (0 bytes)")
        with _open(path) as file:
            if file.frames <= 0:
                return AudioHeader(problem="it holds no samples")
            file.seek(file.frames - 1)
            if len(file.read(1, dtype="float32")) != 1:
                return AudioHeader(problem="it is truncated: its last frame is missing")
            return AudioHeader(file.frames, file.samplerate, file.channels)
    except READ_ERRORS as error:
        return AudioHeader(problem=_reason(error))


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Length of a file after resampling: round(frames x to / from)."""
    return round(frames * to_rate / from_rate)


def read_crop(
    path: Path | str,
    start: int,
    length: int,
    sample_rate: int,
    expected: AudioHeader | None = None,
) -> np.ndarray:
    """Decode ``length`` samples from ``start``, both counted at ``sample_rate``.

    A crop that reaches over an end of the file is filled with zeros there. The file is opened up to
    `READ_ATTEMPTS` times, with growing pauses: disks on a cluster stumble.

    Args:
        path: any file that soundfile reads.
        start: may be negative.
        length: in samples.
        sample_rate: of the result; the file is resampled (soxr HQ) where its own rate differs.
        expected: the header in the index; a file that no longer has it is an error.

    Returns:
        float32 [C, length] with the file's own channels.

    Raises:
        UserError: the file cannot be read, is shorter than its header says, has changed since it
            was indexed, or holds NaN or infinite samples. The message names it.
    """
    crop = with_retries(path, lambda: _read_crop_once(path, start, length, sample_rate, expected))
    if not np.isfinite(crop).all():
        raise UserError(f"{path}: it holds samples that are NaN or infinite")
    return crop


def with_retries(path: Path | str, read: Callable[[], Read]) -> Read:
    """``read()``, up to `READ_ATTEMPTS` times with growing pauses; each failure is logged.

    Raises:
        UserError: the last attempt failed too.
    """
    delay_s = RETRY_DELAY_S
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            return read()
        except READ_ERRORS as error:
            reason = _reason(error)
            logger.warning("%s: attempt %d of %d: %s", path, attempt, READ_ATTEMPTS, reason)
        if attempt < READ_ATTEMPTS:
            time.sleep(delay_s)
            delay_s *= 2
    raise UserError(f"{path}: it cannot be read ({READ_ATTEMPTS} attempts; the last: {reason})")


def _read_crop_once(
    path: Path | str, start: int, length: int, sample_rate: int, expected: AudioHeader | None
) -> np.ndarray:
    with _open(path) as file:
        header = AudioHeader(file.frames, file.samplerate, file.channels)
        if expected is not None and header != expected:
            raise UserError(f"{path}: it has changed since it was indexed ({expected} -> {header})")
        first, stop, lead = _source_span(start, length, header, sample_rate)
        crop = np.zeros((header.channels, length), dtype=np.float32)
        if first >= stop:
            return crop
        samples = _read_frames(file, first, stop - first)
    if header.sample_rate != sample_rate:
        samples = soxr.resample(samples, header.sample_rate, sample_rate, quality="HQ")
    usable = samples[max(lead, 0) : lead + length]
    offset = max(-lead, 0)
    crop[:, offset : offset + len(usable)] = usable.T
    return crop


def _open(path: Path | str | bytes) -> soundfile.SoundFile:
    """Soundfile cannot open a name that is not UTF-8 unless it is given as bytes."""
    return soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else os.fsdecode(path))


def _source_span(
    start: int, length: int, header: AudioHeader, sample_rate: int
) -> tuple[int, int, int]:
    """Which frames [first, stop) of the file a crop needs, and how far into them it starts.

    Resampling 48 to 44.1 kHz turns every 160 frames into 147: only a stretch that starts on such a
    border has the same output grid as the whole file.

        file    |160 |160 |160 |160 |160 |160 |
        crop              ..xxxxxxx..            x wanted, . context of the resampling filter
        read         |============...|           from the border before the context

    Returns:
        first, stop (frames of the file) and lead (samples at ``sample_rate``; negative where the
        crop starts before the file).
    """
    if header.sample_rate == sample_rate:
        first = min(max(start, 0), header.frames)
        return first, min(max(start + length, 0), header.frames), start - first
    common = gcd(header.sample_rate, sample_rate)
    border, grid = header.sample_rate // common, sample_rate // common
    context = -(-CONTEXT_SAMPLES * header.sample_rate // min(header.sample_rate, sample_rate))
    first = max(start * border // grid - context, 0) // border * border
    stop = min(-(-(start + length) * border // grid) + context, header.frames)
    return first, stop, start - first // border * grid


def _read_frames(file: soundfile.SoundFile, first: int, count: int) -> np.ndarray:
    """Exactly ``count`` frames, float32 [count, C]."""
    file.seek(first)
    samples = file.read(count, dtype="float32", always_2d=True)
    if len(samples) != count:
        raise OSError(f"only {len(samples)} of {count} frames from frame {first}: truncated?")
    return samples


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(getattr(error, "error_string", error)).strip() or type(error).__name__

"""One audio file: its header, and any crop of it at any rate without decoding the whole."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr

from saga_sr.audio.decoder import Known
from saga_sr.audio.reader import READ_ERRORS, check_end, open_audio, reason
from saga_sr.audio.repair import Note
from saga_sr.support.errors import UserError

READ_ATTEMPTS = 3
RETRY_DELAY_S = 0.5  # before the second attempt; doubled before each further one
CONTEXT_SAMPLES = (
    256  # at the lower of the two rates; soxr's HQ filter reaches about 160 (measured)
)

Read = TypeVar("Read")
logger = logging.getLogger(__name__)


# --- one file -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class AudioHeader:
    """What a file is found to hold.

    Attributes:
        frames: the length, as decoding gives it, in samples per channel.
        sample_rate: Hz.
        channels: how many.
        problem: why the file cannot be used, or "".
        exact_seeks: see `saga_sr.audio.decoder.Known`.
        notes: what was wrong with the file and is mended while reading.
    """

    frames: int = 0
    sample_rate: int = 0
    channels: int = 0
    problem: str = ""
    exact_seeks: bool = field(default=True, compare=False)
    notes: tuple[Note, ...] = field(default=(), compare=False)

    @property
    def known(self) -> Known:
        return Known(
            self.frames, self.sample_rate, self.channels, self.exact_seeks, is_plain=not self.notes
        )

    @property
    def note(self) -> str:
        """All notes in one line, or ""."""
        return "; ".join(map(str, self.notes))

    def __str__(self) -> str:
        return f"{self.frames} frames, {self.sample_rate} Hz, {self.channels} channels"


def read_header(path: Path | str | bytes) -> AudioHeader:
    """Find out what a file holds, up to its last frame; where only decoding tells, by decoding."""
    try:
        with open_audio(path) as file:
            if file.frames <= 0:
                return AudioHeader(problem="it holds no samples")
            check_end(file)
            return AudioHeader(
                file.frames,
                file.sample_rate,
                file.channels,
                exact_seeks=file.exact_seeks,
                notes=file.notes,
            )
    except READ_ERRORS as error:
        return AudioHeader(problem=reason(error))


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
        path: any file that `open_audio` opens.
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
            last = reason(error)
            logger.warning("%s: attempt %d of %d: %s", path, attempt, READ_ATTEMPTS, last)
        if attempt < READ_ATTEMPTS:
            time.sleep(delay_s)
            delay_s *= 2
    raise UserError(f"{path}: it cannot be read ({READ_ATTEMPTS} attempts; the last: {last})")


def _read_crop_once(
    path: Path | str, start: int, length: int, sample_rate: int, expected: AudioHeader | None
) -> np.ndarray:
    with open_audio(path, None if expected is None else expected.known) as file:
        header = AudioHeader(file.frames, file.sample_rate, file.channels)
        if expected is not None and header != expected:
            raise UserError(f"{path}: it has changed since it was indexed ({expected} -> {header})")
        first, stop, lead = _source_span(start, length, header, sample_rate)
        crop = np.zeros((header.channels, length), dtype=np.float32)
        if first >= stop:
            return crop
        samples = file.read(first, stop - first)
    if header.sample_rate != sample_rate:
        samples = soxr.resample(samples, header.sample_rate, sample_rate, quality="HQ")
    usable = samples[max(lead, 0) : lead + length]
    offset = max(-lead, 0)
    crop[:, offset : offset + len(usable)] = usable.T
    return crop


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

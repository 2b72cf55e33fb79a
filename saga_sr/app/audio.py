"""What the page does with audio: accept a file, measure it, restore it, prepare it for the eye and
the ear.

    file --accept--> source --inspect_clip--> Clip      (bandwidth, picture, something to play)
                              restore_clip --> Restored (WAV to keep, picture, a comparison to play)

The work itself is `saga_sr.upsample`'s and `saga_sr.audio.spectrogram`'s. Everything here is a
stream, so that ten minutes need no more memory than ten seconds: pictures are accumulated column by
column while the audio passes.

The comparison is one file that holds input and result on channels of their own. One file has one
position, so the page can switch between them without losing it, by a sample.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from saga_sr.app.words import PageError
from saga_sr.audio.bandwidth import Bandwidth, measure_bandwidth
from saga_sr.audio.file import resampled_length
from saga_sr.audio.scan import READABLE
from saga_sr.audio.spectrogram import COLOUR_MAP, RANGE_DB, spectrogram_db, top_of_scale_db
from saga_sr.audio.streams import (
    BLOCK_FRAMES,
    AudioSource,
    FileSource,
    Reader,
    WrittenAudio,
    resampled,
    write_audio,
)
from saga_sr.support.errors import UserError
from saga_sr.support.files import atomic_path

MAX_CHANNELS = 2  # what the page can play side by side
_COLUMNS, _ROWS = 1000, 512  # of a picture; a panel has about as many pixels
_HOP = 256  # of `spectrogram_db` for clips as short as a chunk
_CHUNK, _CONTEXT = 512 * _HOP, 4 * _HOP  # samples; the context is half of its window
_PREVIEW_SHARE = 0.05  # of the time of a restoration, about

Report = Callable[[float], None]  # called with the fraction done; may raise to stop the work
Progress = Callable[[int, int], None]  # called with (parts done now, parts in all)
WAITING = -1.0  # reported as the fraction done, while somebody else's restoration runs


# ---------------------------------------------------------------------------- in
@dataclass(frozen=True)
class Clip:
    """A file that the page has accepted and measured.

    Attributes:
        source: the file.
        bandwidth: see there.
        sample_rate: the model's, in Hz, at which everything below is.
        frames: the length.
        level: root mean square.
        peak: largest magnitude.
        top_db: what the brightest colour means, in both pictures of a comparison.
        picture: PNG, no axes: 0 to half of the sample rate, the whole duration.
        preview: WAV for the browser.
    """

    source: FileSource
    bandwidth: Bandwidth
    sample_rate: int
    frames: int
    level: float
    peak: float
    top_db: float
    picture: Path
    preview: Path

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate


def accept(path: Path, max_duration_s: float) -> FileSource:
    """Open a file that the page can work with.

    Raises:
        PageError: one sentence on why not, without the folder that the file lies in.
    """
    try:
        source = FileSource(path)
    except UserError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise PageError("unreadable", name=path.name, reason=reason, formats=READABLE) from error
    duration_s = source.frames / source.sample_rate
    if duration_s > max_duration_s:
        minutes, most = f"{duration_s / 60:.1f}", f"{max_duration_s / 60:.1f}"
        raise PageError("too_long", name=path.name, minutes=minutes, most=most)
    if source.channels > MAX_CHANNELS:
        raise PageError("too_many_channels", name=path.name, channels=source.channels)
    source.name = path.name
    return source


def inspect_clip(source: FileSource, sample_rate: int, folder: Path, report: Report) -> Clip:
    """Measure and draw ``source``; ``folder`` gets the files.

    Raises:
        UserError: the file cannot be read to its end, or a sample is NaN or infinite.
    """
    watched = _Watched(source, passes=3, report=report)
    bandwidth = measure_bandwidth(watched, sample_rate)
    frames = resampled_length(source.frames, source.sample_rate, sample_rate)
    level, picture = _Level(), _Picture(frames)
    for _ in _seen(resampled(watched, sample_rate), level, picture):
        pass
    levels_db = picture.finish()
    top_db = top_of_scale_db(levels_db)
    drawn = save_picture(levels_db, top_db, folder / "input.png")
    preview = folder / "input.preview.wav"
    _write_preview(preview, [watched], sample_rate, frames, level.peak)
    return Clip(
        source, bandwidth, sample_rate, frames, level.rms, level.peak, top_db, drawn, preview
    )


class _Watched:
    """A source that reports how much of ``passes`` readings is done."""

    def __init__(self, source: AudioSource, passes: int, report: Report) -> None:
        self.name, self.sample_rate = source.name, source.sample_rate
        self.channels, self.frames = source.channels, source.frames
        self._source, self._total, self._report = source, passes * source.frames, report
        self._done = 0

    def blocks(self) -> Iterator[np.ndarray]:
        for block in self._source.blocks():
            yield block
            self._done += len(block)
            self._report(min(self._done / self._total, 1.0))


# ---------------------------------------------------------------------------- out
@dataclass(frozen=True)
class Restored:
    """What came of a `Clip`.

    Attributes:
        audio: WAV, 32 bit float, at the model's rate: the result, at its own level.
        written: its length and peak.
        picture: PNG, on the scale of the clip's.
        preview: WAV for the browser: the channels of the input, then those of the result.
        gains: by which input and result are to be played so that they are equally loud; at most 1.
        passed_through: whether there was nothing to add.
        seconds: what it took.
    """

    audio: Path
    written: WrittenAudio
    picture: Path
    preview: Path
    gains: tuple[float, float]
    passed_through: bool
    seconds: float


def write_restored(
    restored: Callable[[Progress], Iterator[Tensor]],
    clip: Clip,
    passed_through: bool,
    folder: Path,
    report: Report,
) -> Restored:
    """Write what ``restored`` makes of ``clip``, pieces [C, n]; ``folder`` gets the files."""
    start, done = time.perf_counter(), 0

    def progress(now: int, total: int) -> None:
        nonlocal done
        done += now
        report(done / total * (1 - _PREVIEW_SHARE))

    report(0.0)
    level, picture = _Level(), _Picture(clip.frames)
    pieces = restored(progress)
    audio = folder / f"{Path(clip.source.name).stem}.restored.wav"
    written = write_audio(
        audio,
        _seen(pieces, level, picture),
        clip.sample_rate,
        clip.source.channels,
        clip.frames,
        "float",
    )
    drawn = save_picture(picture.finish(), clip.top_db, folder / "restored.png")
    watched = _Watched(clip.source, 1, lambda share: report(1 - (1 - share) * _PREVIEW_SHARE))
    tracks: list[AudioSource] = [watched, FileSource(audio)]
    preview, peak = folder / "comparison.preview.wav", max(clip.peak, level.peak)
    _write_preview(preview, tracks, clip.sample_rate, clip.frames, peak)
    gains = matched_gains(clip.level, level.rms)
    seconds = time.perf_counter() - start
    return Restored(audio, written, drawn, preview, gains, passed_through, seconds)


def matched_gains(level_a: float, level_b: float) -> tuple[float, float]:
    """Gains that bring two levels to the lower of them; 1 where either is silent."""
    if level_a == 0 or level_b == 0:
        return 1.0, 1.0
    target = min(level_a, level_b)
    return target / level_a, target / level_b


def _write_preview(
    path: Path, tracks: Sequence[AudioSource], sample_rate: int, frames: int, peak: float
) -> None:
    """All channels of ``tracks`` in one 16 bit file, together turned down where ``peak`` clips."""
    readers = [Reader(resampled(track, sample_rate)) for track in tracks]
    scale = 1 / max(peak, 1.0)

    def pieces() -> Iterator[Tensor]:
        while (piece := torch.cat([r.take(BLOCK_FRAMES) for r in readers])).shape[-1]:
            yield piece * scale

    channels = sum(track.channels for track in tracks)
    write_audio(path, pieces(), sample_rate, channels, frames, "16")


# ---------------------------------------------------------------------------- on the way
class _Level:
    """Root mean square and peak of a stream."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._energy, self._count = 0.0, 0

    def add(self, piece: Tensor) -> None:
        self.peak = max(self.peak, piece.abs().max().item())
        self._energy += piece.double().square().sum().item()
        self._count += piece.numel()

    @property
    def rms(self) -> float:
        return math.sqrt(self._energy / max(self._count, 1))


class _Picture:
    """Spectrogram of a stream of ``frames`` samples, power averaged in at most 1000 columns."""

    def __init__(self, frames: int) -> None:
        self._num_frames = math.ceil(frames / _HOP)
        self._columns = min(self._num_frames, _COLUMNS)
        self._frame = 0  # the next one
        self._power: np.ndarray = np.zeros((0, 0))  # [F, columns], summed
        self._held: Tensor | None = None  # from one context before the next frame on

    def add(self, piece: Tensor) -> None:
        held = F.pad(piece, (_CONTEXT, 0)) if self._held is None else self._held
        self._held = held if self._held is None else torch.cat([held, piece], dim=-1)
        while self._held.shape[-1] >= _CHUNK + 2 * _CONTEXT:
            self._draw(_CHUNK)

    def finish(self) -> np.ndarray:
        """[F, columns] in dB."""
        assert self._held is not None  # accepted files are not empty
        left = self._num_frames - self._frame
        missing = left * _HOP + 2 * _CONTEXT - self._held.shape[-1]
        self._held = F.pad(self._held, (0, max(missing, 0)))
        if left:
            self._draw(left * _HOP)
        counts = np.bincount(self._column(np.arange(self._num_frames)), minlength=self._columns)
        return 10 * np.log10(self._power / counts)

    def _draw(self, samples: int) -> None:
        assert self._held is not None
        level_db = spectrogram_db(self._held[:, : samples + 2 * _CONTEXT])
        first, count = _CONTEXT // _HOP, samples // _HOP
        power = 10 ** (level_db[:, first : first + count].astype(np.float64) / 10)
        if not self._power.size:
            self._power = np.zeros((len(power), self._columns))
        columns = self._column(self._frame + np.arange(count))
        np.add.at(self._power.T, columns, power.T)
        self._frame += count
        self._held = self._held[:, samples:].clone()

    def _column(self, frame: np.ndarray) -> np.ndarray:
        return frame * self._columns // self._num_frames


def _seen(pieces: Iterable[Tensor], *observers: _Level | _Picture) -> Iterator[Tensor]:
    for piece in pieces:
        for observer in observers:
            observer.add(piece)
        yield piece


def colour_scale(count: int = 9) -> list[str]:
    """The colours of a picture from the darkest to the brightest, as ``#rrggbb``."""
    shares = np.linspace(0, 1, count)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b, _ in colormaps[COLOUR_MAP](shares, bytes=True)]


def save_picture(levels_db: np.ndarray, top_db: float, path: Path) -> Path:
    """Draw a spectrogram as a bare PNG, low frequencies at the bottom.

    Args:
        levels_db: [F, N].
        top_db: gets the brightest colour; what is `RANGE_DB` below it, the darkest.
        path: of the file; also returned.
    """
    bins = levels_db[: len(levels_db) // _ROWS * _ROWS]
    rows = bins.reshape(_ROWS, -1, bins.shape[1]).mean(axis=1)[::-1]
    index = np.clip((rows - top_db) / RANGE_DB + 1, 0, 1) * 255
    image = Image.fromarray(np.ascontiguousarray(index.astype(np.uint8)), "P")
    colours = colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3]
    image.putpalette(colours.tobytes())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
    return path

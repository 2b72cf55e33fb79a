"""Up to where a clip really holds sound: where its spectrum ends, and where its band does.

`spectrum_end_hz` finds cliffs and where the spectrum ends in nothing: the right
answer for a truth. For an input it is too high wherever the band fades. A tape or an old filter of
24 to 48 dB per octave leaves remains for one or two octaves above its band, and there is hiss up to
Nyquist; a crossover up there would keep the dullness. `band_end_hz` also looks for such a fade: a
level that falls by more than recordings themselves do, and never comes back.

The fade's thresholds are those which few full-band clips of music, speech and effects reach
(``benchmarks/quality/bandwidth.py`` measures them, and how well filters are found).

Words for where a band ends, everywhere used like this, all in Hz:

    cutoff        what a filter is set to: the low-pass's nominal frequency, the crossover's end
    passband      up to where low-passed audio is still the original: `Lowpass.passband_hz`, -0.5 dB
    spectrum end  up to where a truth holds anything: `spectrum_end_hz`; ``hr_end``: of an HR clip
    band end      up to where an input is sound, fades known: `band_end_hz`; the model adds the rest
                  (a filter took 3 to 10 dB there, its passband ends lower: `band_of` has both)
    bandwidth     band end and roll-off of a whole source: `saga_sr.audio.bandwidth`
    roll-off      98.5 % of the magnitude lie below it: `saga_sr.rolloff`; near an end, but none
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy import signal
from torch import Tensor

_END_WINDOW_S = 0.0464  # 2048 samples at 44.1 kHz
_END_RELATIVE = 0.06  # bands and transition of a cliff, relative to its frequency (1/12 octave)
_END_MIN_BINS = 8
_END_LOWEST_HZ = 1000.0
_CLIFF_DB = 20.0  # music and speech themselves never fall this much in 1/12 octave for good
_CLIFF_EDGE_DB = 6.0
_NOTHING_DB = 100.0  # below the loudest bin: float residue, not signal
_SILENT_MEAN_SQUARE = 1e-14
_AUDIBLE_HZ = 100.0
_ROUNDING_POWER = 4 * 2.0**-30 / 12  # 16-bit rounding noise and 6 dB for dither

# (octaves, dB): a fall for good by this much is a filter's.
_FADES = ((1, 40.0), (2 / 3, 32.0), (1 / 2, 28.0), (1 / 3, 25.0))
_EDGE_DB = 6.0
_STEPS = 24  # levels per octave
_LOWEST_HZ = 1000.0
_BELOW_CLIFF = 0.97  # of the end; the cliff itself is no fade
_MIN_BINS = 4  # of a level, on either side
_FALL_DB = 20.0  # above a filter's edge, measures how steep it is
_STEEP_DB = 36.0  # per octave, as recordings themselves do not fall
_FLAT_TOPS = 2  # times; a peak may have a flat top by chance


@dataclass(frozen=True)
class Band:
    """A band's ends in Hz, in (0, Nyquist], or 0.0 for silence.

    Attributes:
        end_hz: see `band_end_hz`.
        passband_hz: up to where nothing is missing; at most ``end_hz``.
    """

    end_hz: float
    passband_hz: float


def band_end_hz(audio: Tensor, sample_rate: int) -> float:
    """Where the band of a clip ends, be it at a cliff or in a fade.

    A fade is a fall of the long-term level for good: by 40 dB in an octave, or by what `_FADES`
    lists in less. It begins at the lowest place, 1 kHz or above, from which the level falls so. The
    answer is the highest frequency whose level is less than 6 dB below the level there. Hiss that
    leaves too little of the fall hides it.

    Args:
        audio: [C, T] or [T], nominally in [-1, 1].
        sample_rate: Hz.

    Returns:
        In (0, `spectrum_end_hz`], or 0.0 for a silent clip.
    """
    return band_of(audio, sample_rate).end_hz


def band_of(audio: Tensor, sample_rate: int) -> Band:
    """Where the band of a clip ends, and up to where the filter that ended it took nothing.

    What an input lost inside of its band cannot be seen, but how steep its filter is can: as far
    (in octaves) as the level falls by 20 dB above the filter's edge, the passband ends below that
    edge. Of a Butterworth filter of any order that runs forwards and backwards, at -6 dB at its
    edge, that is the -0.5 dB point within a tenth of an octave: what training calls a low-pass's
    passband (`saga_sr.lowpass`). Where nothing falls, it is the end.

    Arguments as of `band_end_hz`.
    """
    end_hz = spectrum_end_hz(audio, sample_rate)
    if end_hz < 2 * _LOWEST_HZ:
        return Band(end_hz, end_hz)
    samples = np.atleast_2d(audio.detach().cpu().double().numpy())
    power = long_term_power(samples - samples.mean(axis=1, keepdims=True), sample_rate)
    grid_hz, level_db = _levels(power, sample_rate, max(end_hz, _BELOW_CLIFF * sample_rate / 2))
    below_cliff = level_db[grid_hz < _BELOW_CLIFF * end_hz]
    start = _fade_start(below_cliff)
    if start is not None:
        kept = np.flatnonzero(below_cliff[start:] > below_cliff[start] - _EDGE_DB)
        end_hz = float(grid_hz[start + kept[-1]])
    return Band(end_hz, _passband_hz(grid_hz, level_db, end_hz))


def _passband_hz(grid_hz: np.ndarray, level_db: np.ndarray, end_hz: float) -> float:
    """See `band_of`; the filter's edge may lie below an end that was found far down its slope."""
    step = int(np.searchsorted(grid_hz, end_hz, side="right")) - 1
    top = step
    while top >= 2 and level_db[top - 2] - level_db[top] > 2 * _STEEP_DB / _STEPS:
        top -= 1
    edge_hz = end_hz
    if step - top > 2:  # a cliff is no wider than that
        kept = np.flatnonzero(level_db[top : step + 1] > level_db[top] - _EDGE_DB)
        edge_hz = min(float(grid_hz[top + kept[-1]]), end_hz)
    at_edge_db = np.interp(np.log2(edge_hz), np.log2(grid_hz), level_db)
    lower = grid_hz[(grid_hz > edge_hz) & (level_db < at_edge_db - _FALL_DB)]
    if not len(lower):
        return edge_hz
    return float(edge_hz * 2 ** -max(np.log2(lower[0] / edge_hz) - 1 / _STEPS, 0.0))


def _fade_start(level_db: np.ndarray) -> int | None:
    """The lowest step from which the level falls, for good, as only filtered sound falls."""
    highest_above = np.maximum.accumulate(level_db[::-1])[::-1]
    starts = []
    for octaves, least_db in _FADES:
        width = round(octaves * _STEPS)
        falls = np.flatnonzero(level_db[:-width] - highest_above[width:] >= least_db)
        starts += falls[:1].tolist()
    return min(starts, default=None)


def _levels(power: np.ndarray, sample_rate: int, end_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, 24 to an octave, and the median level in dB around each."""
    bins_per_hz = 2 * (len(power) - 1) / sample_rate
    grid_hz = _LOWEST_HZ * 2 ** np.arange(0, np.log2(end_hz / _LOWEST_HZ), 1 / _STEPS)
    decibel = 10 * np.log10(power + 1e-30)
    half = np.maximum(grid_hz * (2 ** (1 / _STEPS) - 1) * bins_per_hz, _MIN_BINS)
    middle = grid_hz * bins_per_hz
    spans = zip(np.rint(middle - half).astype(int), np.rint(middle + half).astype(int), strict=True)
    return grid_hz, np.array([np.median(decibel[max(a, 0) : b + 1]) for a, b in spans])


def spectrum_end_hz(audio: Tensor, sample_rate: int) -> float:
    """Where the spectrum of a clip really ends, in Hz.

    A lossy or low-passed clip ends at a cliff: a place where the running median of the long-term
    spectrum drops by 20 dB within a twelfth of an octave and stays down up to Nyquist, be it to
    silence or to a noise floor. Its -6 dB point is the answer, whatever the level of the clip. The
    median looks past single tones (a pilot tone above the cliff); quiet high frequencies that are
    reached by a slope are content. Without a cliff the answer is where the spectrum fades for good
    to 16-bit rounding noise or to 100 dB below its loudest bin, and Nyquist if it does not: a
    filter as gentle as a Butterworth of order 4 has no cliff.

    Args:
        audio: [C, T] or [T], nominally in [-1, 1]; its loud parts and channels count most.
        sample_rate: in Hz.

    Returns:
        In (0, sample_rate / 2], or 0.0 for a silent clip.
    """
    samples = np.atleast_2d(audio.detach().cpu().double().numpy())
    if samples.size == 0:
        return 0.0
    samples = samples - samples.mean(axis=1, keepdims=True)
    if np.square(samples).mean() < _SILENT_MEAN_SQUARE:
        return 0.0
    power = long_term_power(samples, sample_rate)
    hz_per_bin = sample_rate / 2 / (len(power) - 1)
    # Rumble below 100 Hz is not what the rest of the spectrum is measured against.
    loudest = power[ceil(_AUDIBLE_HZ / hz_per_bin) :].max()
    end = _find_cliff(np.maximum(_decibel(power / loudest), -_NOTHING_DB), hz_per_bin)
    if end is None:
        end = _find_fade(power, max(_ROUNDING_POWER, loudest * 10 ** (-_NOTHING_DB / 10)))
    return end * hz_per_bin


def long_term_power(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """[C, T] -> [F]: mean power over time and channels; white noise shows its mean square.

    Frames lie wholly inside the clip, and the window's side lobes are below -92 dB: the edge of a
    clip and its loud bass do not show as high frequencies. Clipped frames do not count where there
    are others.
    """
    size = 2 * ceil(sample_rate * _END_WINDOW_S / 2)
    samples = np.pad(samples, ((0, 0), (0, max(0, size - samples.shape[1]))))
    window = signal.windows.blackmanharris(size, sym=False)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size, axis=1)[:, :: size // 2]
    clipped = np.lib.stride_tricks.sliding_window_view(is_clipped(samples), size, axis=1)
    counts = np.asarray(~clipped[:, :: size // 2].any(axis=2))  # [C, frames]
    counts |= ~counts.any()  # where all are clipped, all count
    power = np.zeros(size // 2 + 1)
    for start in range(0, frames.shape[1], 256):  # an hour of audio must not be held as frames
        spectrum = np.fft.rfft(frames[:, start : start + 256] * window)
        weight = counts[:, start : start + 256, None]
        power += (np.square(np.abs(spectrum)) * weight).sum(axis=(0, 1))
    return power / (counts.sum() * np.square(window).sum())


def is_clipped(samples: np.ndarray) -> np.ndarray:
    """Which samples lie on flat tops: the highest or lowest value, often twice running.

    Clipping makes overtones that no filter has seen, so its frames say nothing of a band.
    """
    if samples.size == 0 or samples.max() == samples.min():
        return np.zeros(samples.shape, bool)
    nearly = 1e-6 * (samples.max() - samples.min())
    at_top = (samples >= samples.max() - nearly) | (samples <= samples.min() + nearly)
    running = at_top[..., 1:] & at_top[..., :-1]
    return at_top if running.sum() > _FLAT_TOPS else np.zeros_like(at_top)


def long_term_levels(audio: Tensor, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies from 1 kHz, 24 to an octave, and the median level of [C, T] in dB around each."""
    samples = np.atleast_2d(audio.detach().cpu().double().numpy())
    power = long_term_power(samples - samples.mean(axis=1, keepdims=True), sample_rate)
    return _levels(power, sample_rate, _BELOW_CLIFF * sample_rate / 2)


def _decibel(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(power + 1e-30)


def _find_fade(power: np.ndarray, nothing: float) -> int:
    """The last bin around which there is more than ``nothing``."""
    around = np.full(_END_MIN_BINS + 1, 1 / (_END_MIN_BINS + 1))
    smoothed = np.convolve(np.pad(power, _END_MIN_BINS // 2, mode="edge"), around, mode="valid")
    above = np.flatnonzero(smoothed > nothing)
    return int(above[-1]) if len(above) else 0


def _find_cliff(level_db: np.ndarray, hz_per_bin: float) -> int | None:
    """Bin of the -6 dB point of the highest cliff at 1 kHz or above, if there is one."""
    lowest = int(_END_LOWEST_HZ / hz_per_bin)
    if lowest + 3 * _END_MIN_BINS > len(level_db):
        return None
    drop_db = _drop_for_good_db(level_db, lowest)
    deepest = int(drop_db.argmax())
    if drop_db[deepest] < _CLIFF_DB:
        return None
    below_threshold = np.flatnonzero(drop_db[:deepest] < _CLIFF_DB)
    start = int(below_threshold[-1]) + 1 if len(below_threshold) else lowest
    width = max(int(start * _END_RELATIVE), _END_MIN_BINS)
    plateau_db = np.median(level_db[start - width : start])
    smoothed_db = np.convolve(np.pad(level_db, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    beyond = deepest + 2 * width  # the transition and half of the window that saw it
    intact = np.flatnonzero(smoothed_db[start:beyond] > plateau_db - _CLIFF_EDGE_DB)
    return start + (int(intact[-1]) if len(intact) else 0)


def _drop_for_good_db(level_db: np.ndarray, lowest: int) -> np.ndarray:
    """[F]: median level just below a bin, less the highest one that follows beyond a transition."""
    num_bins = len(level_db)
    bins = np.arange(num_bins)
    width = np.maximum((bins * _END_RELATIVE).astype(int), _END_MIN_BINS)
    last = num_bins - _END_MIN_BINS  # the last bin with enough bins from it on
    above = np.full(num_bins, -np.inf)
    starts = bins[lowest : last + 1]
    above[starts] = _medians(level_db, starts, np.minimum(width[starts], num_bins - starts))
    loudest_above = np.maximum.accumulate(above[::-1])[::-1]
    edges = bins[lowest : last - _END_MIN_BINS]
    below = _medians(level_db, np.maximum(edges - width[edges], 0), np.minimum(width[edges], edges))
    transition = np.minimum(width[edges], (num_bins - edges) // 2)
    drop_db = np.zeros(num_bins)
    drop_db[edges] = below - loudest_above[np.minimum(edges + transition, last)]
    return drop_db


def _medians(values: np.ndarray, starts: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Median of ``values[start : start + width]`` for each pair of a start and a width."""
    offset = np.arange(widths.max())
    inside = offset < widths[:, None]
    index = np.minimum(starts[:, None] + offset, len(values) - 1)
    ordered = np.sort(np.where(inside, values[index], np.inf), axis=1)
    row = np.arange(len(starts))
    return (ordered[row, (widths - 1) // 2] + ordered[row, widths // 2]) / 2

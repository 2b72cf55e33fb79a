"""Up to where a recording really holds sound, measured, so that the model adds what lies above.

`saga_sr.metrics.spectrum_end_hz` finds cliffs and where the spectrum ends in nothing: the right
answer for a truth. For an input it is too high wherever the band fades. A tape or an old filter of
24 to 48 dB per octave leaves remains for one or two octaves above its band, and there is hiss up to
Nyquist; a crossover up there would keep the dullness. `band_end_hz` also looks for such a fade: a
level that falls by more than recordings themselves do, and never comes back.

The fade's thresholds are those which few full-band clips of music, speech and effects reach
(``benchmarks/bandwidth.py`` measures them, and how well filters are found).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from saga_sr.metrics import long_term_power, spectrum_end_hz
from saga_sr.rolloff import spectral_rolloff
from saga_sr.streams import AudioSource, Reader, resampled

_CHUNK_S = 5.0
_FULL_BAND = 0.9  # of the Nyquist frequency; 19.8 kHz at 44.1 kHz

# (octaves, dB): a fall for good by this much is a filter's.
_FADES = ((1, 40.0), (2 / 3, 32.0), (1 / 2, 28.0), (1 / 3, 25.0))
_EDGE_DB = 6.0
_STEPS = 24  # levels per octave
_LOWEST_HZ = 1000.0
_BELOW_CLIFF = 0.97  # of the end; the cliff itself is no fade
_MIN_BINS = 4  # of a level, on either side


@dataclass(frozen=True)
class Bandwidth:
    """The real bandwidth of a source, measured at the model's rate.

    Attributes:
        rolloff_hz: 98.5 % spectral roll-off, as the model was trained on.
        end_hz: where its band ends; 0 for silence.
        nyquist_hz: of the model's rate.
    """

    rolloff_hz: float
    end_hz: float
    nyquist_hz: float

    @property
    def is_silent(self) -> bool:
        return self.end_hz == 0

    @property
    def is_full(self) -> bool:
        """Whether there is nothing left for the model to add."""
        return self.end_hz >= _FULL_BAND * self.nyquist_hz


def measure_bandwidth(source: AudioSource, sample_rate: int) -> Bandwidth:
    """Measure a source in chunks of 5 s; the answer is their median, weighted by energy."""
    chunk = round(_CHUNK_S * sample_rate)
    reader = Reader(resampled(source, sample_rate))
    measured = []  # (energy, roll-off, end) per chunk
    while (audio := reader.take(chunk)).shape[-1]:
        energy = audio.double().square().sum().item()
        end_hz = band_end_hz(audio, sample_rate)
        measured.append((energy, spectral_rolloff(audio[None], sample_rate).item(), end_hz))
    audible = [values for values in measured if values[2] > 0]
    rolloff_hz, end_hz = (_weighted_median([(m[0], m[i]) for m in audible]) for i in (1, 2))
    return Bandwidth(rolloff_hz, end_hz, sample_rate / 2)


def _weighted_median(weighted: list[tuple[float, float]]) -> float:
    """The value at which half of the weight is reached; 0 of nothing."""
    half, reached = sum(weight for weight, _ in weighted) / 2, 0.0
    for weight, value in sorted(weighted, key=lambda pair: pair[1]):
        reached += weight
        if reached >= half:
            return value
    return 0.0


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
    end_hz = spectrum_end_hz(audio, sample_rate)
    if end_hz < 2 * _LOWEST_HZ:
        return end_hz
    samples = np.atleast_2d(audio.detach().cpu().double().numpy())
    power = long_term_power(samples - samples.mean(axis=1, keepdims=True), sample_rate)
    grid_hz, level_db = _levels(power, sample_rate, _BELOW_CLIFF * end_hz)
    start = _fade_start(level_db)
    if start is None:
        return end_hz
    kept = np.flatnonzero(level_db[start:] > level_db[start] - _EDGE_DB)
    return float(grid_hz[start + kept[-1]])


def _fade_start(level_db: np.ndarray) -> int | None:
    """The lowest step from which the level falls, for good, as only filtered sound falls."""
    highest_above = np.maximum.accumulate(level_db[::-1])[::-1]
    starts = []
    for octaves, least_db in _FADES:
        width = round(octaves * _STEPS)
        falls = np.flatnonzero(level_db[:-width] - highest_above[width:] >= least_db)
        starts += falls[:1].tolist()
    return min(starts, default=None)


def _levels(power: np.ndarray, sample_rate: int, top_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, 24 to an octave, and the median level in dB around each."""
    bins_per_hz = 2 * (len(power) - 1) / sample_rate
    grid_hz = _LOWEST_HZ * 2 ** np.arange(0, np.log2(top_hz / _LOWEST_HZ), 1 / _STEPS)
    decibel = 10 * np.log10(power + 1e-30)
    half = np.maximum(grid_hz * (2 ** (1 / _STEPS) - 1) * bins_per_hz, _MIN_BINS)
    middle = grid_hz * bins_per_hz
    spans = zip(np.rint(middle - half).astype(int), np.rint(middle + half).astype(int), strict=True)
    return grid_hz, np.array([np.median(decibel[max(a, 0) : b + 1]) for a, b in spans])

"""The bandwidth of a source of any length: where its band ends, and its roll-off."""

from dataclasses import dataclass

from saga_sr.audio.band_end import band_end_hz
from saga_sr.audio.streams import AudioSource, Reader, resampled
from saga_sr.rolloff import spectral_rolloff

_CHUNK_S = 5.0
_FULL_BAND = 0.9  # of the Nyquist frequency; 19.8 kHz at 44.1 kHz


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

"""Two simple ways to fill the missing band, which a model has to beat.

Spectral band replication copies the upper half of the low band upwards, patch after patch, and
gives each third octave the level that the slope of the clip's own low band promises. It knows when
something sounds, since the copies carry the low band's rhythm, and not what.

Shaped noise has the average spectrum of a corpus and the level of the clip. It knows neither, and
still scores an LSD close to published models': that is what is wrong with LSD alone.

Both return full-band audio; what is below the cutoff is replaced as for a model's output
(`saga_sr.lowfreq`). Shapes: [B, C, T]; frequencies in Hz; nothing is trained.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.metrics import band_edges_hz
from saga_sr.support.errors import UserError

N_FFT = 2048
HOP = 512
_FITTED_OCTAVES = 2.0  # of the low band, below the cutoff
_SILENT = 1e-12  # power; 120 dB below full scale


def spectral_band_replication(lr_audio: Tensor, cutoff_hz: float, sample_rate: int) -> Tensor:
    """Copy [cutoff / 2, cutoff) upwards to Nyquist, under a fitted envelope.

    The envelope goes on from the level of the last third octave below the cutoff, with the slope
    (dB per octave) of the straight line through the third octaves of the last two octaves. It never
    rises: a clip whose low band does would get a high band louder than anything in it.

    Args:
        lr_audio: [B, C, T], intact up to ``cutoff_hz``.
        cutoff_hz: where copying begins.
        sample_rate: in Hz.

    Returns:
        [B, C, T], the low band's own bins below the cutoff.
    """
    window = torch.hann_window(N_FFT, device=lr_audio.device)
    flat = lr_audio.float().flatten(0, 1)
    spectrum = torch.stft(
        flat, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
    )  # [B * C, F, N]
    copied = _copy_upwards(spectrum, round(cutoff_hz * N_FFT / sample_rate))
    shaped = copied * _band_gains(copied, cutoff_hz, sample_rate)
    audio = torch.istft(shaped, N_FFT, HOP, window=window, length=lr_audio.shape[-1])
    return audio.unflatten(0, lr_audio.shape[:2])


def _copy_upwards(spectrum: Tensor, cutoff_bin: int) -> Tensor:
    """Fill bins from ``cutoff_bin`` on with copies of the upper half of what lies below.

    A partial that moves up by m bins must also turn m / N_FFT times faster from frame to frame.
    """
    num_bins, num_frames = spectrum.shape[-2:]
    width = max(cutoff_bin // 2, 1)
    target = torch.arange(num_bins, device=spectrum.device)
    copy = ((target - cutoff_bin).clamp(min=-1) // width + 1).clamp(min=0)  # 0 below the cutoff
    shift = copy * width
    frame = torch.arange(num_frames, device=spectrum.device)
    turns = (shift[:, None] * frame * HOP % N_FFT) / N_FFT
    return spectrum[:, target - shift] * torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)


def _band_gains(copied: Tensor, cutoff_hz: float, sample_rate: int) -> Tensor:
    """Gains [R, F, 1] that give each third octave above the cutoff the level of the fitted line."""
    density = copied.abs().square().mean(dim=-1)  # [R, F], long-term power of a bin
    hz_per_bin = sample_rate / N_FFT
    below = band_edges_hz(cutoff_hz / 2**_FITTED_OCTAVES, cutoff_hz)
    fitted_hz, fitted_db = _band_levels(density, below, hz_per_bin)
    slope_db = _slope_db(np.log2(fitted_hz), fitted_db)
    above = band_edges_hz(cutoff_hz, sample_rate / 2)
    target_hz, actual_db = _band_levels(density, above, hz_per_bin)
    wanted_db = fitted_db[:, -1:] + slope_db * np.log2(target_hz / fitted_hz[-1])
    gains = np.ones(tuple(density.shape))
    for band, (low, high) in enumerate(pairwise(above)):
        inside = _bins(low, high, hz_per_bin)
        gains[:, inside] = 10 ** ((wanted_db - actual_db)[:, band, None] / 20)
    gains[:, _bins(above[-1], sample_rate, hz_per_bin)] = 0  # Nyquist itself
    silent = density.mean(dim=1, keepdim=True).cpu().numpy() < _SILENT
    return torch.from_numpy(np.where(silent, 0, gains)).to(density)[..., None]


def _bins(low_hz: float, high_hz: float, hz_per_bin: float) -> slice:
    """The bins in [low_hz, high_hz), at least one."""
    first = int(np.ceil(low_hz / hz_per_bin))
    return slice(first, max(int(np.ceil(high_hz / hz_per_bin)), first + 1))


def _band_levels(
    density: Tensor, edges_hz: list[float], hz_per_bin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centres [K] in Hz and levels [R, K] in dB per bin of the bands between ``edges_hz``."""
    power = density.double().cpu().numpy()
    bands = list(pairwise(edges_hz))
    levels = [power[:, _bins(low, high, hz_per_bin)].mean(axis=1) for low, high in bands]
    centres = np.array([np.sqrt(low * high) for low, high in bands])
    return centres, 10 * np.log10(np.stack(levels, axis=1) + _SILENT)


def _slope_db(octave: np.ndarray, level_db: np.ndarray) -> np.ndarray:
    """Least-squares slope [R, 1] in dB per octave, at most 0, of levels [R, K] at octaves [K]."""
    centred = octave - octave.mean()
    slope = (level_db * centred).sum(axis=1, keepdims=True) / np.square(centred).sum()
    return np.minimum(slope, 0)


# ---------------------------------------------------------------------------------------------
# Shaped noise
@dataclass(frozen=True)
class NoiseEnvelope:
    """An average spectrum: what shaped noise is shaped by.

    Attributes:
        hz: centres of third octaves, rising.
        level_db: power per Hz there, relative to a clip whose mean square is 1.
    """

    hz: tuple[float, ...]
    level_db: tuple[float, ...]

    def amplitude(self, frequency_hz: Tensor) -> Tensor:
        """Square root of power per Hz at any frequencies; held beyond the ends."""
        octave = np.log2(np.maximum(frequency_hz.double().cpu().numpy(), 1.0))
        level_db = np.interp(octave, np.log2(self.hz), self.level_db)
        return torch.from_numpy(10 ** (level_db / 20)).to(frequency_hz)


# `fit_envelope` of the first 6 s of 60 files each of music, speech and effects of the training
# corpus that scripts/fetch_corpus.py makes.
# fmt: off
DEFAULT_ENVELOPE = NoiseEnvelope(
    (56.1, 70.7, 89.1, 112.2, 141.4, 178.2, 224.5, 282.8, 356.4, 449.0, 565.7, 712.7, 898.0,
     1131.4, 1425.4, 1795.9, 2262.7, 2850.9, 3591.9, 4525.5, 5701.8, 7183.8, 9051.0, 11403.5,
     14367.5, 18857.4),
    (-42.4, -42.4, -41.0, -39.1, -37.1, -36.4, -34.6, -36.5, -36.2, -36.0, -38.0, -40.4, -42.2,
     -45.2, -47.3, -49.8, -52.4, -54.0, -56.7, -60.4, -62.6, -65.5, -68.8, -71.2, -74.8, -72.0),
)

# fmt: on
def fit_envelope(clips: Iterable[tuple[Tensor, int]]) -> NoiseEnvelope:
    """Average spectrum of (clip [C, T], sample rate) pairs.

    The geometric mean over clips at unit RMS: the arithmetic one is the spectrum of the brightest
    clip, and noise of that shape is too bright for all others. A clip counts in the bands below the
    end of its spectrum; a silent one does not count.

    Raises:
        UserError: no clip, or only silent ones.
    """
    edges = np.array(band_edges_hz(50.0, 22050.0))
    spectra = []
    for audio, sample_rate in clips:
        end_hz = spectrum_end_hz(audio, sample_rate)
        if end_hz > 0:
            mean_square = float(audio.double().square().mean())
            level_db = _density_db(audio, sample_rate, edges[edges <= end_hz].tolist())
            missing = np.full(len(edges) - 1 - len(level_db), np.nan)
            spectra.append(np.append(level_db - 10 * np.log10(mean_square), missing))
    if not spectra:
        raise UserError("an average spectrum needs at least one clip that is not silent")
    seen = ~np.isnan(spectra).all(axis=0)
    average = np.nanmean(np.array(spectra)[:, seen], axis=0)
    centres = np.sqrt(edges[:-1] * edges[1:])[seen]
    return NoiseEnvelope(tuple(centres.round(1).tolist()), tuple(average.round(1).tolist()))


def _density_db(audio: Tensor, sample_rate: int, edges_hz: list[float]) -> np.ndarray:
    """[C, T] -> [K]: power per Hz of bands, in dB re full scale squared per Hz."""
    window = torch.hann_window(N_FFT, device=audio.device)
    spectrum = torch.stft(
        audio.float(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
    )
    power = spectrum.abs().square().mean(dim=(0, 2))[None]
    _, level_db = _band_levels(power, edges_hz, sample_rate / N_FFT)
    return level_db[0] + 10 * np.log10(2 / (sample_rate * float(window.square().sum())))


def shaped_noise(
    lr_audio: Tensor, envelope: NoiseEnvelope, sample_rate: int, generator: torch.Generator
) -> Tensor:
    """Gaussian noise under ``envelope`` at each clip's RMS; channels are independent.

    Args:
        lr_audio: [B, C, T]; only its RMS and shape matter. (The missing band adds little to it.)
        envelope: power per Hz at unit RMS.
        sample_rate: in Hz.
        generator: a CPU generator; draws B x C x T numbers.

    Returns:
        [B, C, T].
    """
    white = torch.randn(lr_audio.shape, generator=generator).to(lr_audio.device)
    num_samples = lr_audio.shape[-1]
    frequency_hz = torch.fft.rfftfreq(num_samples, 1 / sample_rate, device=lr_audio.device)
    # White noise of unit power has 2 / sample_rate of it in each Hz.
    gain = envelope.amplitude(frequency_hz) * (sample_rate / 2) ** 0.5
    rms = lr_audio.float().square().mean(dim=(1, 2), keepdim=True).sqrt()
    return rms * torch.fft.irfft(torch.fft.rfft(white) * gain, n=num_samples)

"""The crossover, or low-frequency replacement (paper: post-processing): the input stays below.

    out = generated + LP(lr_audio - generated)

    soft   LP is a smooth linear-phase filter             (default)
    hard   LP keeps the STFT bins below the cutoff        (the paper, after AudioSR)
    off    LP is zero: the pure model, its own low band included

The soft LP has a finite kernel, a Kaiser-windowed sinc. Its weights LP and 1 - LP are
complementary: equal signals pass unchanged whatever the cutoff, nothing rings for longer than the
kernel, and no phase turns at the crossover. The transition is about one auditory filter wide and
ends at ``cutoff_hz``, where the LR audio's own passband ends. Below it the output is the LR audio
to within the ripple of the kernel (-90 dB). The hard way leaves the seam that the paper names as
its limitation.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from saga_sr.audio.filters import block_length, kernel_response, overlap_save, pad_reflected
from saga_sr.support.choices import CROSSOVERS, Crossover

Mode = Crossover
RIPPLE_DB = 90.0
_KAISER_BETA = 0.1102 * (RIPPLE_DB - 8.7)
_TRANSITION_OF_CUTOFF = 0.1  # one auditory filter (ERB) is 0.108 f + 25 Hz
_MIN_TRANSITION_HZ, _MAX_TRANSITION_HZ = 100.0, 1000.0
_N_FFT, _HOP = 2048, 512  # of the hard mode


def low_frequency_replace(
    generated: Tensor,
    lr_audio: Tensor,
    cutoff_hz: Tensor | float,
    sample_rate: int,
    mode: Mode = "soft",
) -> Tensor:
    """``generated`` above the cutoff, ``lr_audio`` below it.

    Args:
        generated: the model's audio, float [B, C, T].
        lr_audio: the band-limited input, same shape.
        cutoff_hz: per item [B] or for all. Soft: where the transition ends (callers give the end of
            the LR audio's passband where it is known). Hard: the first replaced bin's frequency. 0
            keeps ``generated``; the Nyquist frequency or more keeps ``lr_audio``.
        sample_rate: Hz.
        mode: ``soft``, ``hard`` or ``off``.

    Returns:
        [B, C, T]; its level is never changed.
    """
    if generated.shape != lr_audio.shape:
        raise ValueError(f"shapes differ: {tuple(generated.shape)} and {tuple(lr_audio.shape)}")
    if mode == "off":
        return generated.clone()
    cutoffs = torch.as_tensor(cutoff_hz, dtype=torch.float64, device="cpu")
    cutoffs = cutoffs.expand(generated.shape[0])
    missing = lr_audio - generated
    if mode == "soft":
        kernels = crossover_kernels(cutoffs, sample_rate)
        return generated + _filtered(missing, kernels)
    if mode == "hard":
        return generated + _keep_bins(missing, cutoffs.to(generated), sample_rate)
    raise ValueError(f"mode is {mode!r}; allowed: {', '.join(CROSSOVERS)}")


def crossover_transition_hz(cutoff_hz: Tensor) -> Tensor:
    """Width of the soft transition, which ends at ``cutoff_hz``: 10 % of it, 100 to 1000 Hz."""
    return (_TRANSITION_OF_CUTOFF * cutoff_hz).clamp(_MIN_TRANSITION_HZ, _MAX_TRANSITION_HZ)


def crossover_margin(sample_rate: int, min_cutoff_hz: float = 0.0) -> int:
    """Samples on either side that a sample of the soft output depends on, for cutoffs this high.

    Whoever filters a long file in pieces reads this much more on both sides.
    """
    width_hz = crossover_transition_hz(torch.tensor(min_cutoff_hz)).item()
    # Kaiser's formula for the length of a kernel with this ripple and transition.
    taps = (RIPPLE_DB - 7.95) / (2.285 * 2 * math.pi * width_hz / sample_rate)
    return math.ceil(taps / 2)


def crossover_kernels(cutoff_hz: Tensor, sample_rate: int) -> Tensor:
    """Low-pass kernels of the soft mode, float64 [B, 2 M + 1] with M = `crossover_margin`.

    A cutoff below the narrowest transition (100 Hz) leaves no band to keep: its kernel is zero.
    """
    width_hz = crossover_transition_hz(cutoff_hz)
    margin = crossover_margin(sample_rate, cutoff_hz.min().item())
    n = torch.arange(-margin, margin + 1, dtype=torch.float64)
    halves = (RIPPLE_DB - 7.95) / (2.285 * 4 * math.pi * width_hz / sample_rate)
    window = torch.i0(_KAISER_BETA * (1 - (n / halves[:, None]) ** 2).clamp(min=0).sqrt())
    window = torch.where(n.abs() <= halves[:, None], window, 0.0)
    nyquist_hz = sample_rate / 2
    middle_hz = torch.where(cutoff_hz < nyquist_hz, cutoff_hz - width_hz / 2, nyquist_hz)
    kernels = torch.sinc(middle_hz[:, None] / nyquist_hz * n) * window
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    return torch.where(cutoff_hz[:, None] > width_hz[:, None], kernels, 0.0)


# ---------------------------------------------------------------------------- soft
def _filtered(audio: Tensor, kernels: Tensor) -> Tensor:
    """Convolve item b of [B, C, T] with its kernel [B, 2 M + 1]; ends are reflected."""
    margin = kernels.shape[1] // 2
    response = kernel_response(kernels, block_length(margin)).to(audio)
    return overlap_save(pad_reflected(audio, margin), response, audio.shape[-1], margin)


# ---------------------------------------------------------------------------- hard
def _keep_bins(audio: Tensor, cutoffs: Tensor, sample_rate: int) -> Tensor:
    """[B, C, T] without the STFT bins at and above the cutoff of its item.

    Four frames cover every sample, the ends included, so the squared Hann windows add up to 1.5.
    """
    bins_hz = torch.arange(_N_FFT // 2 + 1, device=audio.device) * (sample_rate / _N_FFT)
    kept = (bins_hz < cutoffs[:, None]).to(audio)  # [B, F]
    # Item by item: the frames of one fit into the cache, those of a batch do not.
    return torch.stack([_through_stft(*item) for item in zip(audio, kept, strict=True)])


def _through_stft(audio: Tensor, gains: Tensor) -> Tensor:
    """[C, T] with every frame's spectrum multiplied by ``gains`` [F]."""
    channels, length = audio.shape
    margin, overlap = _N_FFT - _HOP, _N_FFT // _HOP
    frames = (margin + length - 1) // _HOP + 1
    window = torch.hann_window(_N_FFT, dtype=audio.dtype, device=audio.device)
    padded = functional.pad(
        pad_reflected(audio, margin), (0, (frames - 1) * _HOP + _N_FFT - length - 2 * margin)
    )
    spectra = torch.fft.rfft(padded.unfold(-1, _N_FFT, _HOP) * window)  # [C, frames, F]
    parts = torch.fft.irfft(spectra * gains, _N_FFT) * (window / 1.5)
    parts = parts.unflatten(-1, (overlap, _HOP))
    total = audio.new_zeros(channels, frames + overlap - 1, _HOP)
    for part in range(overlap):
        total[:, part : part + frames] += parts[:, :, part]
    return total.flatten(-2)[:, margin : margin + length]

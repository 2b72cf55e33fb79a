"""Spectral roll-off, the acoustic condition (paper, Fig. 2 and 3): what is heard, what to make.

The roll-off is the frequency below which 98.5 % of the time-summed STFT magnitude lies (paper,
section 3). f_l is measured on the low-resolution audio, f_h on the high-resolution audio; at
inference f_h is the user's control over how much high-frequency energy appears (Fig. 3). It enters
the DiT twice, in `saga_sr.model`: as a token of `_context`, and by `_build_rolloff_prepend`.

Everywhere outside the conditioner a roll-off is a frequency in Hz. The conditioner sees bin / 1025,
which is in [0, 1): the 1025 bins of a 2048-point STFT end at bin 1024.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

N_FFT = 2048
HOP = 512
NUM_BINS = N_FFT // 2 + 1
FRACTION = 0.985
FRAMES_AT_ONCE = 32  # what fits a processor's cache: 5 times as fast as all frames by torch.stft


def hz_to_unit(frequency_hz: Tensor, sample_rate: int) -> Tensor:
    """Frequency in Hz, 0 to the Nyquist frequency, as bin / 1025 in [0, 1)."""
    return frequency_hz * N_FFT / sample_rate / NUM_BINS


def unit_to_hz(unit: Tensor | float, sample_rate: int) -> Tensor:
    """Inverse of `hz_to_unit`."""
    return torch.as_tensor(unit, dtype=torch.float32) * NUM_BINS * sample_rate / N_FFT


def spectral_rolloff(audio: Tensor, sample_rate: int, fraction: float = FRACTION) -> Tensor:
    """Roll-off frequency of each clip.

    The magnitudes are summed over time and over channels. (The authors average the channels'
    waveforms first, which is the same for a centred source and finds nothing in an anti-phase one.)

    Args:
        audio: [B, C, T], any length from one sample.
        sample_rate: in Hz.
        fraction: share of the summed magnitude below the roll-off.

    Returns:
        [B] in Hz, a multiple of sample_rate / 2048; 0 for digital silence.
    """
    padded = nn.functional.pad(audio.float(), (N_FFT // 2, N_FFT // 2))
    frames = padded.unfold(-1, N_FFT, HOP)  # [B, C, frames, N_FFT], a view
    window = torch.hann_window(N_FFT, device=audio.device)
    pieces = frames.split(FRAMES_AT_ONCE, dim=2)
    magnitude = torch.stack([_magnitude_sum(piece * window) for piece in pieces]).sum(dim=0)
    cumulative = magnitude.double().cumsum(dim=-1)
    bins = (cumulative < fraction * cumulative[:, -1:]).sum(dim=-1)  # first bin that reaches it
    return bins.float() * (sample_rate / N_FFT)


def _magnitude_sum(frames: Tensor) -> Tensor:
    """|spectrum| of windowed frames [B, C, n, N_FFT], summed over channels and frames: [B, F].

    On a CPU numpy's ``abs`` takes a tenth of the time of torch's.
    """
    spectrum = torch.fft.rfft(frames.detach())
    on_cpu = spectrum.device.type == "cpu"
    magnitude = torch.from_numpy(np.abs(spectrum.numpy())) if on_cpu else spectrum.abs()
    return magnitude.sum(dim=(1, 2))


class RolloffFourierConditioner(nn.Module):
    """Embeds (f_l, f_h) twice: a token for cross-attention and a vector to prepend (paper, Fig. 2).

    Each frequency passes through learnable Fourier features; both are concatenated on the channel
    axis and projected, once per use.

    Args:
        embedding_dim_cross: width of the cross-attention token (the DiT's ``cond_token_dim``).
        embedding_dim_global: width of the vector to prepend (the DiT's ``embed_dim``).
        dropout_rate: kept for the user's signature and not used: every branch of eq. (4) keeps the
            roll-off, and what training leaves untold is drawn per sample (`rolloff_prob`).
        num_frequencies: learnable frequencies per roll-off.
    """

    def __init__(
        self,
        embedding_dim_cross: int,
        embedding_dim_global: int,
        dropout_rate: float = 0.0,
        num_frequencies: int = 128,
    ) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        # Log-spaced from half a cycle over the whole range to 64: coarse enough to generalise,
        # fine enough to tell neighbouring bins of the spectrum apart.
        self.frequencies = nn.Parameter(torch.logspace(-1, 6, num_frequencies, base=2.0))
        num_features = 2 * (2 * num_frequencies + 1)
        self.to_cross = _projection(num_features, embedding_dim_cross)
        self.to_global = _projection(num_features, embedding_dim_global)

    def features(self, unit: Tensor) -> Tensor:
        """[B, 2] in [0, 1) -> [B, 2 * (2 F + 1)]: the value itself, its sines and its cosines."""
        phase = 2 * math.pi * unit.unsqueeze(-1) * self.frequencies  # [B, 2, F]
        return torch.cat([unit.unsqueeze(-1), phase.sin(), phase.cos()], dim=-1).flatten(1)

    def forward(self, rolloff_unit: Tensor) -> tuple[Tensor, Tensor]:
        """Embed roll-offs.

        Args:
            rolloff_unit: [B, 2], f_l and f_h in [0, 1) (see `hz_to_unit`); an f_h of 0 is untold.

        Returns:
            The cross-attention token [B, 1, embedding_dim_cross] and the vector to prepend
            [B, embedding_dim_global].
        """
        features = self.features(rolloff_unit)
        return self.to_cross(features).unsqueeze(1), self.to_global(features)


def _projection(num_features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_features, width), nn.SiLU(), nn.Linear(width, width))

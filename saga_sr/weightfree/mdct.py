"""A pretransform that needs no weights: the companded, band-scaled MDCT of every audio channel.

Orthonormal and perfectly reconstructing; coefficients are companded (sign(x) |x|^p) and scaled per
band, so that the flow sees roughly unit variance in every channel. The MDCT of a segment of
L x hop samples has exactly L frames, as the model needs. It is computed as a lapped transform: a
rotation ("butterfly") across each boundary between blocks, then a DCT-IV of each block. The first
and last edge are left unrotated, which makes the whole map square and orthonormal, edges included:

      block 0        block 1        block 2
    |..........><..........><..........|      >< : rotation over hop/2 samples on either side
    |  DCT-IV   |   DCT-IV   |  DCT-IV  |

With ``level_bins`` every group of so many bins is followed by a channel that holds its level. The
coefficients of a sound that is like noise have no sign that could be foretold: the best guess of
each is 0, however loud they are, and a flow between noise and such data reads loudness from the
energy of hundreds of numbers at once, where an error of one per cent is one of decibels. A level
of its own is a number like any other, which a network can foretell and a solver follows easily
(gain and shape, as in audio coding; Valin et al. 2012, RFC 6716). Decoding brings each group to
its level.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saga_sr.pretransform import Pretransform
from saga_sr.support.precision import in_full_precision

if TYPE_CHECKING:
    from saga_sr.config import MDCTConfig

LEVEL_GAIN = 2.0  # levels are settled before coefficients are: in time t they are larger
LEVEL_FLOOR = 0.01  # in units of the latent


class MDCTPretransform(Pretransform):
    """Companded and band-scaled MDCT of every audio channel; see the module's picture.

    Args:
        config: hop, channels, companding power, band scales.
        sample_rate: places ``band_hz`` on the bins.
    """

    margin_frames = 1
    needs_weights = False
    basis: Tensor
    cosine: Tensor
    sine: Tensor
    band_std: Tensor
    bin_hz: Tensor
    is_level: Tensor

    def __init__(self, config: "MDCTConfig", sample_rate: int) -> None:
        super().__init__()
        self.hop = self.downsampling_ratio = config.hop
        self.channels = config.channels
        self.latent_dim = config.latent_dim
        self.group = config.level_bins
        self.power = config.power
        self.level_floor = config.level_floor
        n = torch.arange(config.hop, dtype=torch.float64) + 0.5
        basis = torch.cos(math.pi / config.hop * n[:, None] * n[None, :])
        angle = math.pi / 4 * (1 + n[: config.hop // 2] / (config.hop / 2))  # of the sine window
        bin_hz = n * sample_rate / 2 / config.hop
        band_std = np.interp(bin_hz.numpy(), config.band_hz, config.band_std)
        # Functions of the config, hence not part of the weights.
        self._constant("basis", basis * math.sqrt(2 / config.hop))
        self._constant("cosine", angle.sin())
        self._constant("sine", angle.cos())
        self._constant("band_std", torch.from_numpy(band_std)[:, None])
        is_level = torch.zeros_like(bin_hz)
        if self.group:  # a level is content where all of its group is: it lies at the last bin
            bin_hz = _with_levels(bin_hz, bin_hz[self.group - 1 :: self.group], self.group)
            is_level = _with_levels(is_level, torch.ones(config.hop // self.group), self.group)
        self._constant("bin_hz", bin_hz)
        self._constant("is_level", is_level)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float(), persistent=False)

    @in_full_precision
    def encode(self, audio: Tensor) -> Tensor:
        batch, channels, length = audio.shape
        blocks = audio.reshape(batch * channels, length // self.hop, self.hop)
        spectrum = self._rotate(blocks, self.sine) @ self.basis  # [B*C, L, hop]
        spectrum = spectrum.sign() * spectrum.abs() ** self.power
        latent = spectrum.mT / self.band_std  # [B*C, hop, L]
        if self.group:
            rms = latent.unflatten(1, (-1, self.group)).square().mean(dim=2).sqrt()
            latent = _with_levels(latent, log_level(rms), self.group, dim=1)
        return latent.reshape(batch, self.latent_dim, -1)

    @in_full_precision
    def decode(self, latent: Tensor) -> Tensor:
        batch, _, frames = latent.shape
        if self.group:
            groups = latent.unflatten(1, (-1, self.group + 1))
            bins, level = groups.split([self.group, 1], dim=2)
            latent = (bins * _gain(bins, level)).flatten(1, 2)
        spectrum = latent.reshape(batch * self.channels, self.hop, frames) * self.band_std
        spectrum = spectrum.sign() * spectrum.abs() ** (1 / self.power)
        blocks = self._rotate(spectrum.mT @ self.basis, -self.sine)
        return blocks.reshape(batch, self.channels, frames * self.hop)

    def coefficients(self, latent: Tensor) -> Tensor:
        """[B, D, L] -> [B, C, hop, L], without the levels."""
        latent = latent.unflatten(1, (self.channels, -1))
        if not self.group:
            return latent
        return latent.unflatten(2, (-1, self.group + 1))[:, :, :, : self.group].flatten(2, 3)

    def level_change(self, gain_db: float) -> float:
        """What levels change by where audio gets louder by so much (but for `LEVEL_FLOOR`)."""
        return LEVEL_GAIN * self.power * gain_db * math.log(10) / 20

    def content(self, end_hz: Tensor) -> Tensor:
        """1 at bins below the end of each clip's spectrum [B], 0 above: [B, D, 1]."""
        below = (self.bin_hz < end_hz[:, None]).float()  # [B, H]
        return below.repeat(1, self.channels)[..., None]

    def _rotate(self, blocks: Tensor, sine: Tensor) -> Tensor:
        """Rotate sample pairs mirrored at each inner boundary; ``-sine`` undoes ``sine``.

        The DCT-IV continues a block evenly at its left edge and oddly at its right edge, so the
        right half of a block takes its mirror image with a minus sign, the left half with a plus.
        """
        half = self.hop // 2
        right = blocks[:, :-1, half:].flip(-1)  # ends of blocks 0..L-2, outwards from the boundary
        left = blocks[:, 1:, :half]  # starts of blocks 1..L-1, outwards from the boundary
        rotated_right = self.cosine * right - sine * left
        rotated_left = self.cosine * left + sine * right
        first, last = blocks[:, :1, :half], blocks[:, -1:, half:]
        starts = torch.cat([first, rotated_left], dim=1)
        ends = torch.cat([rotated_right.flip(-1), last], dim=1)
        return torch.cat([starts, ends], dim=-1)


def log_level(level: Tensor) -> Tensor:
    """What a channel of levels holds of a root mean square of a group's coefficients."""
    return LEVEL_GAIN * (level + LEVEL_FLOOR).log()


def _gain(bins: Tensor, level: Tensor) -> Tensor:
    """What brings bins [B, G, group, L] to their levels [B, G, 1, L]; 1 of an encoding."""
    rms = bins.square().mean(dim=2, keepdim=True).sqrt()
    return (level / LEVEL_GAIN).exp() / (rms + LEVEL_FLOOR)


def _with_levels(bins: Tensor, levels: Tensor, group: int, dim: int = 0) -> Tensor:
    """[..., H, ...] and [..., H / group, ...] on ``dim``: every group, and behind it its level."""
    both = [bins.unflatten(dim, (-1, group)), levels.unsqueeze(dim + 1)]
    return torch.cat(both, dim=dim + 1).flatten(dim, dim + 1)

"""The prior: where the flow starts, as the low band promises it.

The missing band of one clip lies 60 dB below the low band and that of another above it; a fricative
is all high band, the vowel after it none. And what the LR latent holds already need not be made
again. So the flow does not start from noise of one size around zero, but from

    x_noise = mean + std * noise        mean = the LR latent
                                        std  = scale * missing
    scale     the level that the HR latent will probably have, per frame and band, with the pattern
              of the low band's partials continued (`saga_sr.weightfree.partials`)
    missing   the share of the HR latent that the LR latent lacks, per bin: 0 in the passband

What is left to the DiT is unknown everywhere and of one size nearly everywhere. (A data-dependent
std is the idea of PriorGrad, Lee et al. 2022, a mean that of ResShift, Yue et al. 2023.) Without
it, the DiT spends itself on copying the passband, and what it copies just above the cutoff is the
hole that the low-pass left there.

`PriorPredictor` looks at the LR latent alone:

    log levels of bands, frequency x time --> 2-D convolutions --> log level of the HR latent
    long-term spectrum, frequency         --> 1-D convolutions --> missing

Bands lie a quarter octave apart and convolutions run along them, so that a spectrum is continued
the same way wherever it ends. It is trained beside the DiT, by its own loss alone: the absolute
error of the log level, whose optimum is the median, and the cross-entropy of the missing share.

Shapes: B items, C channels, H bins of a channel (D = C x H latent channels), K bands, L frames.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saga_sr.flow import weighted_mean
from saga_sr.rolloff import FRACTION
from saga_sr.support.precision import in_full_precision
from saga_sr.weightfree.partials import continue_partials, local_mean

if TYPE_CHECKING:
    from saga_sr.config import MDCTConfig

_FLOOR = 0.01  # levels are told apart down to this fraction of the measured level
_LEAST_MISSING = 0.03  # with square-root companding, noise 60 dB below the expected level
_LOW_BANDS_HZ = (100.0, 200.0, 300.0, 420.0, 560.0)  # below, bins are wider than bands
_FIRST_BAND_HZ, _BANDS_PER_OCTAVE = 700.0, 4
_WIDE_S = 0.4
_DILATIONS = ((1, 1), (2, 2), (4, 4), (1, 8), (2, 1), (4, 2))  # of bands, of frames
_KERNEL = (5, 3)
_GAIN = 3.0  # brings log levels and features to about unit size
_EDGE_DILATIONS = (1, 2, 4, 8)
_EDGE_KERNEL, _EDGE_WIDTH = 9, 24
_EDGE_BINS = 2  # below the edge, which the low-pass bends
_UNKNOWN = 4.0  # in the place of an unknown f_h; known ones lie in [-2, 2)


@dataclass(frozen=True)
class Prior:
    """Where the flow of B items starts, and what its errors are measured against.

    Attributes:
        mean: [B, D, L] or broadcastable.
        std: [B, D, L] or broadcastable; no gradient.
        scale: [B, D, L] or broadcastable: the LR latent is shown to the DiT in this unit, and the
            loss counts errors in it. No gradient.
        log_level: [B, C, K, L], natural logarithm of the expected over the measured level.
        missing_logit: [B, C, H].
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    log_level: Tensor
    missing_logit: Tensor

    def heard(self) -> Tensor:
        """[B, C (K + H), L]: all that was predicted, for the DiT; no gradient."""
        missing = self.missing_logit.detach().sigmoid()[..., None]
        frames = missing.expand(*missing.shape[:-1], self.log_level.shape[-1])
        levels = self.log_level.detach() / _GAIN + 1
        return torch.cat([levels, frames], dim=2).flatten(1, 2)


class PriorPredictor(nn.Module):
    """What an LR latent of an `MDCTPretransform` promises.

    Args:
        config: of the pretransform.
        sample_rate: places the bands on the bins.
        width: channels of the 2-D convolutions.
    """

    bands: Tensor
    octaves: Tensor
    bin_octaves: Tensor

    def __init__(self, config: "MDCTConfig", sample_rate: int, width: int) -> None:
        super().__init__()
        self.channels, self.nyquist_hz = config.channels, sample_rate / 2
        band_hz = _band_centres_hz(self.nyquist_hz)
        self.bin_hz, self.frame_s = self.nyquist_hz / config.hop, config.hop / sample_rate
        bin_hz = (torch.arange(config.hop) + 0.5) * self.bin_hz
        self.register_buffer("bands", _band_weights(band_hz, bin_hz), persistent=False)
        self.register_buffer("octaves", band_hz.log2(), persistent=False)
        self.register_buffer("bin_octaves", bin_hz.log2(), persistent=False)
        self.num_bands = len(band_hz)
        self._wide_frames = round(_WIDE_S / 2 / self.frame_s) * 2 + 1
        self.place = nn.Parameter(torch.randn(4, self.num_bands) / 2)
        self.first = nn.Conv2d(9, width, 5, padding="same")
        self.rolloff = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(
            nn.Conv2d(width, width, _KERNEL, padding="same", dilation=d) for d in _DILATIONS
        )
        self.last = nn.Conv2d(width, 1, 1)
        for parameter in self.last.parameters():  # at first, what is measured is expected
            nn.init.zeros_(parameter)
        self.edge = nn.ModuleList(
            nn.Conv1d(
                _EDGE_WIDTH if i else 2, _EDGE_WIDTH, _EDGE_KERNEL, padding="same", dilation=d
            )
            for i, d in enumerate((1, *_EDGE_DILATIONS))
        )
        self.edge_last = nn.Conv1d(_EDGE_WIDTH, 1, 1)

    @in_full_precision
    def forward(
        self, lr_latent: Tensor, measured: Tensor, rolloff_unit: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Expect the HR latent.

        Args:
            lr_latent: [B, D, L].
            measured: [B, D, L], `Pretransform.level` of it: makes the answer independent of gain.
            rolloff_unit: [B, 2], normalised roll-offs, where the stage has them; f_h may be NaN:
                unknown.

        Returns:
            ``log_level`` and ``missing_logit`` of a `Prior`.
        """
        batch, frames = lr_latent.shape[0], lr_latent.shape[-1]
        features = self._features(lr_latent, measured)
        distances, told = self._about_rolloff(rolloff_unit, batch)
        place = self.place.expand(features.shape[0], -1, -1)
        still = torch.cat([distances, place], dim=1)[..., None].expand(-1, -1, -1, frames)
        hidden = self.first(torch.cat([features, still], dim=1)) + told[..., None, None]
        for layer in self.layers:
            hidden = hidden + layer(F.silu(hidden))
        log_level = _GAIN * self.last(F.silu(hidden)).squeeze(1)  # [B C, K, L]
        missing_logit = self._missing_logit(lr_latent, measured, log_level.detach())
        return (
            log_level.unflatten(0, (batch, self.channels)),
            missing_logit.unflatten(0, (batch, self.channels)),
        )

    @in_full_precision
    def prior(
        self, lr_latent: Tensor, measured: Tensor, log_level: Tensor, missing_logit: Tensor
    ) -> Prior:
        """The `Prior` that a prediction amounts to; arguments as in and from `forward`."""
        missing = missing_logit.detach().sigmoid()
        log_scale = self.expand(log_level.detach().clamp(min=math.log(_FLOOR)))
        log_scale = log_scale + self._partials(lr_latent / measured, missing)
        scale = measured * log_scale.exp()
        share = missing.clamp(min=_LEAST_MISSING).flatten(1)[..., None]
        return Prior(lr_latent, scale * share, scale, log_level, missing_logit)

    def _partials(self, lr_latent: Tensor, missing: Tensor) -> Tensor:
        """[B, D, L]: the pattern of partials above the LR latent's band, log amplitude; it leaves
        the mean square over half a kilohertz as it is. ``missing`` is [B, C, H]."""
        missing = missing.flatten(0, 1)
        power = lr_latent.square().unflatten(1, (self.channels, -1)).flatten(0, 1)
        num_heard = ((missing < 0.5).sum(dim=-1) - _EDGE_BINS).clamp(min=0)
        pattern = continue_partials(power, num_heard, self.frame_s, self.bin_hz)
        pattern = pattern - 0.5 * local_mean((2 * pattern).exp(), self.bin_hz).log()
        return pattern.unflatten(0, (-1, self.channels)).flatten(1, 2)

    def expand(self, log_level: Tensor) -> Tensor:
        """Log levels of bands [B, C, K, L] at every position: [B, D, L]."""
        return torch.einsum("hk,bckl->bchl", self.bands, log_level).flatten(1, 2)

    @in_full_precision
    def loss(self, hr_latent: Tensor, prior: Prior, measured: Tensor, content: Tensor) -> Tensor:
        """How far a predicted prior is from the HR latent [B, D, L] where it is a target, a scalar.

        ``content`` is that of `Pretransform.content`, [B, D, 1]; bands that reach beyond it are
        left out.
        """
        bins = content.squeeze(-1).unflatten(1, (self.channels, -1))  # [B, C, H]
        inside = (bins @ self.bands > 0) & ((1 - bins) @ self.bands == 0)
        bands = inside.float()[..., None]  # [B, C, K, 1]
        true_level = self._log_levels(hr_latent, measured).unflatten(0, (-1, self.channels))
        missing_loss = F.binary_cross_entropy_with_logits(
            prior.missing_logit, self._missing_share(prior.mean, hr_latent), reduction="none"
        )
        level_loss = (prior.log_level - true_level).abs()
        return weighted_mean(level_loss, bands) + weighted_mean(missing_loss, bins)

    def _missing_share(self, lr_latent: Tensor, hr_latent: Tensor) -> Tensor:
        """[B, C, H]: amplitude of HR - LR over that of HR, each over all frames, at most 1."""
        power = [x.square().mean(dim=-1) for x in (hr_latent - lr_latent, hr_latent)]
        share = (power[0] / power[1].clamp(min=1e-9)).sqrt().clamp(max=1)
        return share.unflatten(1, (self.channels, -1))

    def _missing_logit(self, lr_latent: Tensor, measured: Tensor, log_level: Tensor) -> Tensor:
        """[B C, H], from the LR latent's long-term spectrum and its distance from the expected."""
        power = (lr_latent / measured).square().mean(dim=-1)
        heard = 0.5 * (power + 1e-8).log().unflatten(1, (self.channels, -1)).flatten(0, 1)
        expected = torch.einsum("hk,rkl->rhl", self.bands, log_level)
        expected = 0.5 * (2 * expected).exp().mean(dim=-1).log()
        hidden = torch.stack([heard / _GAIN + 1, (heard - expected) / _GAIN], dim=1)
        for index, layer in enumerate(self.edge):
            hidden = hidden + layer(F.silu(hidden)) if index else layer(hidden)
        return self.edge_last(F.silu(hidden)).squeeze(1)

    def _features(self, lr_latent: Tensor, measured: Tensor) -> Tensor:
        """[B C, 3, K, L]: log levels of the bands, now and on average, and of the frame."""
        bands = self._log_levels(lr_latent, measured)
        reach = self._wide_frames // 2
        wide = F.avg_pool1d(bands, self._wide_frames, 1, reach, count_include_pad=False)
        frame = measured.unflatten(1, (self.channels, -1))[:, :, 0].flatten(0, 1)[:, None]
        usual = frame.square().mean(dim=-1, keepdim=True).sqrt()
        loudness = (frame / usual).clamp(min=_FLOOR).log().expand_as(bands)
        return torch.stack([bands / _GAIN + 1, wide / _GAIN + 1, loudness / 2], dim=1)

    def _about_rolloff(self, rolloff_unit: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        """Octaves from the roll-offs to each band [B C, 2, K] (unknown: 0), and [B C, width]."""
        if rolloff_unit is None:
            shape = (batch * self.channels, 2, self.num_bands)
            return self.place.new_zeros(shape), self.place.new_zeros(shape[0], 1)
        known = ~rolloff_unit.isnan()
        unit = rolloff_unit.nan_to_num(1.0)
        octave = (unit.clamp(min=1e-3) * self.nyquist_hz).log2()
        distance = (self.octaves - octave[..., None]) / 2 * known[..., None]
        told = self.rolloff(torch.where(known, 4 * unit - 2, _UNKNOWN))
        times = self.channels
        return distance.repeat_interleave(times, dim=0), told.repeat_interleave(times, dim=0)

    def _log_levels(self, latent: Tensor, measured: Tensor) -> Tensor:
        """Log root mean square over bands and three frames, of ``measured``: [B C, K, L]."""
        power = (latent / measured).square().unflatten(1, (self.channels, -1)).flatten(0, 1)
        weights = self.bands / self.bands.sum(dim=0).clamp(min=1e-6)  # a band may have no bin
        bands = torch.einsum("hk,rhl->rkl", weights, power)
        smooth = F.avg_pool1d(bands, 3, 1, 1, count_include_pad=False)
        return 0.5 * (smooth + _FLOOR**2).log()


def amplitude_rolloff(amplitude: Tensor) -> Tensor:
    """Normalised roll-off [B] of MDCT amplitudes [B, C, H, L] (`saga_sr.rolloff`)."""
    total = amplitude.sum(dim=(1, 3)).cumsum(dim=-1)
    below = total < FRACTION * total[:, -1:]
    return below.sum(dim=-1) / total.shape[-1]


def _band_centres_hz(nyquist_hz: float) -> Tensor:
    count = int(_BANDS_PER_OCTAVE * math.log2(nyquist_hz * 0.96 / _FIRST_BAND_HZ)) + 1
    return torch.tensor(
        [*_LOW_BANDS_HZ, *(_FIRST_BAND_HZ * 2 ** (k / _BANDS_PER_OCTAVE) for k in range(count))]
    )


def _band_weights(band_hz: Tensor, bin_hz: Tensor) -> Tensor:
    """[H, K]: a bin is between two bands, and has shares of them that sum to one."""
    position = bin_hz.clamp(float(band_hz[0]), float(band_hz[-1]))
    right = torch.searchsorted(band_hz, position).clamp(1, len(band_hz) - 1)
    share = (position - band_hz[right - 1]) / (band_hz[right] - band_hz[right - 1])
    weights = torch.zeros(len(bin_hz), len(band_hz))
    weights.scatter_(1, right[:, None], share[:, None])
    weights.scatter_(1, right[:, None] - 1, 1 - share[:, None])
    return weights

"""The frame of tokens in time and frequency: what the LR latent tells before anything is generated.

    told    patches that lie wholly below the passband's end are the LR latent's own: no noise, no
            velocity, no loss; attention reads them
    scale   everywhere else noise and data are measured against what is heard at the same moment
            in the octave below the passband's end; levels, which are logarithms, against its
            logarithm, their mean

The bands' fixed scales are in the MDCT latent already (``band_std``), so the scale says: above the
cutoff the spectrum goes on as spectra do on average. What it is really like is the transformer's
to find out, and with tokens in time and frequency it does (docs/demo_model/tokens.md).

Shapes: B items, C channels, H bins (D = C x H latent channels), L frames; N tokens of P numbers.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saga_sr.frame import Family, Frame
from saga_sr.support.precision import in_full_precision
from saga_sr.weightfree.mdct import MDCTPretransform, log_level
from saga_sr.weightfree.patches import PatchGrid, give_positions

if TYPE_CHECKING:
    from saga_sr.config import ModelConfig, PatchSection
    from saga_sr.model import Conditioning

LEVEL_FRAMES = 9  # 0.1 s with a hop of 512
LEVEL_BELOW = 1.0  # in units of `log_level`: how far below the scale levels lie on average
LEVEL_WEIGHT = 4.0
SURPRISE = 2.0  # times the scale; with square-root companding 12 dB
_MAGNITUDE_FLOOR = 0.02  # of the window's level
_INPUT_LIMIT = 10.0  # standard deviations


@dataclass(frozen=True)
class PatchFrame(Frame):
    """The frame of B windows; ``lr_latent`` is the LR latent as it is.

    Attributes:
        told: [B, D, 1], 1 in told patches and 0 elsewhere.
        mean, scale: [B, D, L], of the data; noise is of the same size.
        heard: [B, N, F], what the network hears of each patch besides its noisy data.
    """

    told: Tensor
    mean: Tensor
    scale: Tensor
    heard: Tensor

    def without_lr(self, drop: Tensor, null: float) -> "PatchFrame":
        return replace(self, heard=self.heard.masked_fill(drop[:, None, None], null))

    def enter(self, z: Tensor) -> Tensor:
        return (1 - self.told) * (z - self.mean) / self.scale

    def leave(self, y: Tensor) -> Tensor:
        return torch.lerp(self.mean + self.scale * y, self.lr_latent, self.told)

    def leave_velocity(self, v: Tensor) -> Tensor:
        return (1 - self.told) * self.scale * v


class PatchFamily(Family):
    """Tokens are patches of an MDCT latent; nothing but the DiT is learnt.

    Args:
        config: of the model.
        pretransform: of the model.
        patch: bins and frames of a token.
    """

    def __init__(
        self, config: "ModelConfig", pretransform: MDCTPretransform, patch: "PatchSection"
    ) -> None:
        self.pretransform, self.sample_rate = pretransform, config.sample_rate
        num_bins = config.latent_dim // config.audio_channels
        levels = patch.bins // pretransform.group if pretransform.group else 0
        self.grid = PatchGrid(config.audio_channels, num_bins, patch.bins + levels, patch.frames)
        self.coefficient_grid = PatchGrid(
            config.audio_channels, pretransform.hop, patch.bins, patch.frames
        )

    def prepare(self, dit: Any) -> None:
        transformer = dit.transformer
        give_positions(transformer, self.grid.rows, transformer.layers[0].self_attn.dim_heads)

    def frame(self, cond: "Conditioning") -> PatchFrame:
        if cond.passband_hz is None:
            raise ValueError("the config has patches: passband_hz is needed")
        return self.listen(cond.lr_latent, cond.passband_hz)

    def start(self, noise: Tensor, level_temperature: float) -> Tensor:
        """Levels may start nearer to what is expected: where loudness is sampled with the same
        freedom as signs are, the ear hears it waver."""
        return noise * (1 + (level_temperature - 1) * self._is_level)

    def louder(self, frame: PatchFrame, gain_db: float) -> PatchFrame:
        lift = self.pretransform.level_change(gain_db) * self._is_level
        return replace(frame, mean=frame.mean + lift)

    def tokens(self, x_t: Tensor, frame: PatchFrame) -> Tensor:
        data = self.grid.to_tokens(_bounded((1 - frame.told) * x_t))
        return torch.cat([data, frame.heard], dim=2).mT

    def latent(self, answer: Tensor) -> Tensor:
        return self.grid.from_tokens(answer.mT)

    def weight(self, frame: PatchFrame, x_t: Tensor, t: Tensor, hr_end_hz: Tensor) -> Tensor:
        """Errors count where the latent is not told and below the end of the HR clip's spectrum;
        in patches that are far louder than the scale says, a share of that; levels, of which there
        are few, `LEVEL_WEIGHT` times."""
        tokens = self.grid.to_tokens((1 - self._is_level) * x_t)
        power = tokens.square().sum(dim=2, keepdim=True) / self.coefficient_grid.token_dim
        share = self.grid.from_tokens(_share_of_surprises(power, t).expand_as(tokens))
        counted = torch.lerp(share, torch.full_like(share, LEVEL_WEIGHT), self._is_level)
        return self._generated(frame, hr_end_hz) * counted

    def missing(self, frame: PatchFrame, hr_end_hz: Tensor) -> Tensor:
        """Coefficients alone: levels say nothing that they do not."""
        return self._generated(frame, hr_end_hz) * (1 - self._is_level)

    def _generated(self, frame: PatchFrame, hr_end_hz: Tensor) -> Tensor:
        return (1 - frame.told) * self.pretransform.content(hr_end_hz)

    @property
    def _is_level(self) -> Tensor:
        """[D, 1]."""
        return self.pretransform.is_level.repeat(self.grid.channels)[:, None]

    @in_full_precision
    def listen(self, lr_latent: Tensor, passband_hz: Tensor) -> PatchFrame:
        """Listen to LR latents.

        Args:
            lr_latent: [B, D, L].
            passband_hz: [B], up to where the LR audio is the truth.

        Every patch hears: its LR latent over the scale; the logarithm of its magnitudes and of the
        scale, both relative to the whole window's level, since the scale alone would hide how
        loudness changes in time; and how much of it lies in the passband.
        """
        grid, pretransform, length = self.grid, self.pretransform, lr_latent.shape[-1]
        bands = pretransform.coefficients(lr_latent)  # [B, C, H, L]
        bin_hz = self.sample_rate / 2 / pretransform.hop
        centre_hz = (torch.arange(pretransform.hop, device=lr_latent.device) + 0.5) * bin_hz
        below = centre_hz < passband_hz[:, None]
        octave = (below & (centre_hz >= passband_hz[:, None] / 2)).to(lr_latent)  # [B, H]
        power = torch.einsum("bh,bchl->bcl", octave, bands.square())
        power = power / octave.sum(dim=1).clamp(min=1)[:, None, None]
        reach = LEVEL_FRAMES // 2
        power = F.avg_pool1d(power, LEVEL_FRAMES, 1, reach, count_include_pad=False)
        level = (power + pretransform.level_floor**2).sqrt()  # [B, C, L]
        scale = level.repeat_interleave(grid.num_bins, dim=1)
        mean = self._is_level * (log_level(scale) - LEVEL_BELOW)
        scale = torch.where(self._is_level == 1, torch.ones_like(scale), scale)
        window = bands.square().mean(dim=(1, 2, 3)).sqrt()[:, None, None] + pretransform.level_floor
        magnitude = (bands.flatten(1, 2).abs() / window + _MAGNITUDE_FLOOR).log() / 2 + 1
        share = grid.known_share(passband_hz, self.sample_rate)  # [B, R]
        loudness = (level / window).log() / 2
        loudness = loudness.unflatten(2, (-1, grid.frames)).transpose(1, 2).flatten(2)  # [B,K,C f]
        heard = [
            grid.to_tokens(_bounded((lr_latent - mean) / scale)),
            self.coefficient_grid.to_tokens(magnitude),
            loudness.repeat_interleave(grid.rows, dim=1),
            grid.row_values(share[..., None], length // grid.frames),
        ]
        told = (share == 1).to(lr_latent).repeat_interleave(grid.bins, dim=1)
        everywhere = told.repeat(1, grid.channels)[..., None]
        return PatchFrame(lr_latent, everywhere, mean, scale, torch.cat(heard, dim=-1))


def _share_of_surprises(power: Tensor, t: Tensor) -> Tensor:
    """What an error counts where x_t is far louder than a scale says, at most 1.

    Squared errors grow with what is there, and a few loud surprises would be all of the loss. The
    share may depend on x_t, which the network hears, but not on the data: the best answer to a
    squared error weighed by w(data) is E[w v | x_t] / E[w | x_t], which believes in no surprises,
    and what is sampled is too quiet.

    Args:
        power: [B, ...], mean square of x_t around each place; noise and data are of size 1.
        t: [B].
    """
    t = t.reshape(-1, *[1] * (power.dim() - 1))
    return ((t**2 + (SURPRISE * (1 - t)) ** 2) / power).clamp(max=1)


def _bounded(value: Tensor) -> Tensor:
    """Measured against a scale that errs, a value may be far out of scale; kept within ten."""
    return _INPUT_LIMIT * (value / _INPUT_LIMIT).tanh()

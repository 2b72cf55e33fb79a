"""The level that the low band promises: what noise and data are measured against.

The missing band of one clip lies 60 dB below the low band and that of another above it; a fricative
is all high band, the vowel after it none. A flow that starts from noise of one size must first find
that out, and on a few loud frames its loss depends. `LevelPredictor` looks at the LR latent alone
and says, for every frame and band, the level that the HR latent will probably have:

    LR latent --> log level of bands --> convolutions over time --> log level of the HR latent
    roll-offs ------------------------------^

It is trained beside the DiT, on the absolute error of the log level: the median, so that an empty
band here and there does not drag it down. The flow takes the level as given: noise starts with the
expected spectrum, and what is left to the DiT is of one size nearly everywhere. What the
convolutions heard is handed to the DiT too, and through it the flow's gradients reach them: cut off
from these they expect the level better, and the whole restores worse (docs/demo_model).

Shapes: B items, C channels, H bins of a channel (D = C x H latent channels), K bands, L frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saga_sr.config import MDCTConfig

_RANGE = 0.01  # bands are told apart down to this fraction of the measured level
_WIDE_FRAMES = 65
_KERNEL = 9
_DILATIONS = (1, 2, 4)


class LevelPredictor(nn.Module):
    """Expected level of the HR latent of an `MDCTPretransform` at each position.

    Args:
        config: of the pretransform; its ``band_hz`` are the bands.
        sample_rate: places them on the bins.
        width: channels of the convolutions.
    """

    bands: Tensor

    def __init__(self, config: MDCTConfig, sample_rate: int, width: int) -> None:
        super().__init__()
        self.channels, self.width = config.channels, width
        num_bands = len(config.band_hz)
        self.register_buffer("bands", _band_weights(config, sample_rate), persistent=False)
        self.rolloff = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv1d(2 * num_bands + 1, width, _KERNEL, padding="same")
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, _KERNEL, padding="same", dilation=d) for d in _DILATIONS
        )
        self.last = nn.Conv1d(width, num_bands, 1)
        for parameter in self.last.parameters():  # at first, what is measured is expected
            nn.init.zeros_(parameter)
        self.brightness = nn.Sequential(
            nn.Linear(2 * (2 * num_bands + 1) + 1, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 1),
        )

    def forward(
        self, lr_latent: Tensor, measured: Tensor, rolloff_unit: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Expect the HR latent's level.

        Args:
            lr_latent: [B, D, L].
            measured: [B, D, L], `Pretransform.level` of it: makes the answer independent of gain.
            rolloff_unit: [B, 2], normalised roll-offs, where the stage has them.

        Returns:
            The natural logarithm of expected over measured level, [B, C, K, L], and what the
            convolutions made of the latent, [B, C x width, L].
        """
        batch = lr_latent.shape[0]
        hidden = self.first(self._features(lr_latent, measured))
        if rolloff_unit is not None:
            told = self.rolloff(4 * rolloff_unit - 2)
            hidden = hidden + told.repeat_interleave(self.channels, dim=0)[..., None]
        for layer in self.layers:
            hidden = hidden + layer(F.silu(hidden))
        hidden = F.silu(hidden)
        return self.last(hidden).unflatten(0, (batch, -1)), hidden.reshape(
            batch, -1, hidden.shape[-1]
        )

    def expand(self, log_level: Tensor) -> Tensor:
        """Log levels of bands [B, C, K, L] at every position: [B, D, L]."""
        return torch.einsum("hk,bckl->bchl", self.bands, log_level).flatten(1, 2)

    def expected_rolloff(self, lr_latent: Tensor, measured: Tensor, low_unit: Tensor) -> Tensor:
        """The HR audio's normalised roll-off f_h that an LR latent promises.

        Args:
            lr_latent, measured: as in `forward`.
            low_unit: [B], normalised f_l.

        Returns:
            [B] in (0, 1), the mean over channels.
        """
        features = self._features(lr_latent, measured)
        loudness = measured.unflatten(1, (self.channels, -1))[:, :, 0].flatten(0, 1)[:, None]
        share = loudness / loudness.sum(dim=-1, keepdim=True)
        low = low_unit.repeat_interleave(self.channels)[:, None]
        pooled = [features.mean(dim=-1), (share * features).sum(dim=-1), 4 * low - 2]
        units = self.brightness(torch.cat(pooled, dim=1)).sigmoid()
        return units.reshape(-1, self.channels).mean(dim=1)

    def loss(self, log_level: Tensor, hr_latent: Tensor, measured: Tensor) -> Tensor:
        """Mean absolute error [] of `forward`'s answer against the HR latent [B, D, L]."""
        return (log_level - self._log_levels(hr_latent, measured)).abs().mean()

    def _features(self, lr_latent: Tensor, measured: Tensor) -> Tensor:
        """[B x C, 2 K + 1, L]: log levels of the bands, now and on average, and of the frame."""
        bands = self._log_levels(lr_latent, measured).flatten(0, 1)
        wide = F.avg_pool1d(bands, _WIDE_FRAMES, 1, _WIDE_FRAMES // 2, count_include_pad=False)
        frame = measured.unflatten(1, (self.channels, -1))[:, :, 0].flatten(0, 1)[:, None]
        usual = frame.square().mean(dim=-1, keepdim=True).sqrt()
        return torch.cat([bands, wide, (frame / usual).clamp(min=_RANGE).log()], dim=1)

    def _log_levels(self, latent: Tensor, measured: Tensor) -> Tensor:
        """Log root mean square over bands and three frames, of ``measured``: [B, C, K, L]."""
        power = (latent / measured).square().unflatten(1, (self.channels, -1))
        weights = self.bands / self.bands.sum(dim=0).clamp(min=1e-6)  # a band may have no bin
        bands = torch.einsum("hk,bchl->bckl", weights, power).flatten(0, 1)
        smooth = F.avg_pool1d(bands, 3, 1, 1, count_include_pad=False)
        return 0.5 * (smooth + _RANGE**2).log().unflatten(0, (-1, self.channels))


def _band_weights(config: MDCTConfig, sample_rate: int) -> Tensor:
    """[H, K]: bin h is between two of ``band_hz``, and has shares of them that sum to one."""
    bin_hz = (torch.arange(config.hop) + 0.5) * sample_rate / 2 / config.hop
    centres = torch.tensor(config.band_hz)
    if len(centres) == 1:
        return torch.ones(config.hop, 1)
    position = bin_hz.clamp(float(centres[0]), float(centres[-1]))
    right = torch.searchsorted(centres, position).clamp(1, len(centres) - 1)
    share = (position - centres[right - 1]) / (centres[right] - centres[right - 1])
    weights = torch.zeros(config.hop, len(centres))
    weights.scatter_(1, right[:, None], share[:, None])
    weights.scatter_(1, right[:, None] - 1, 1 - share[:, None])
    return weights

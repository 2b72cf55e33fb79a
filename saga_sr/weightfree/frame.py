"""The frame of the weight-free family: the flow starts where the low band promises.

The missing band of one clip lies 60 dB below the low band and that of another above it, and what
the LR latent holds already need not be made again. So the flow runs on y = (z - mean) / std with

    mean, std   the LR latent, and the expected level of what it lacks (`saga_sr.weightfree.prior`)

which makes y unknown everywhere and of one size nearly everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saga_sr.frame import Family, Frame
from saga_sr.rolloff import hz_to_unit, unit_to_hz
from saga_sr.weightfree.mdct import MDCTPretransform, bounded, share_of_surprises
from saga_sr.weightfree.prior import Prior, PriorPredictor, amplitude_rolloff

if TYPE_CHECKING:
    from saga_sr.config import ModelConfig
    from saga_sr.model import Conditioning


@dataclass(frozen=True)
class MDCTFrame(Frame):
    """The frame of B items of MDCT latents.

    Attributes:
        prior: mean, std and scale of the latents, and what they were predicted by.
        heard: [B, F, L], what the network is shown of the prediction.
    """

    prior: Prior
    heard: Tensor

    def without_lr(self, drop: Tensor, null: float) -> "MDCTFrame":
        shown = self.lr_latent.masked_fill(drop[:, None, None], null)
        heard = self.heard.masked_fill(drop[:, None, None], 0.0)
        return replace(self, lr_latent=shown, heard=heard)

    def enter(self, z: Tensor) -> Tensor:
        return (z - self.prior.mean) / self.prior.std

    def leave(self, y: Tensor) -> Tensor:
        return self.prior.mean + self.prior.std * y

    def leave_velocity(self, v: Tensor) -> Tensor:
        return self.prior.std * v


class MDCTFamily(Family):
    """Frames of MDCT latents, with a predictor of their levels.

    Args:
        config: of the model.
        pretransform: of the model; measures levels.
        width: of the predictor.
    """

    def __init__(self, config: "ModelConfig", pretransform: MDCTPretransform, width: int) -> None:
        super().__init__()
        self.pretransform, self.sample_rate = pretransform, config.sample_rate
        self.has_rolloff = config.stage.rolloff
        mdct: Any = config.model.pretransform.config  # an MDCTConfig, as its pretransform is one
        self.predictor = PriorPredictor(mdct, config.sample_rate, width)
        self.predictor.rolloff.requires_grad_(self.has_rolloff)
        heard = config.audio_channels * self.predictor.num_bands + config.latent_dim
        self.embedding = nn.Conv1d(heard, 2 * config.latent_dim, 1)
        nn.init.zeros_(self.embedding.weight)
        self.parts = {"prior_predictor": self.predictor, "prior_embed": self.embedding}
        self.trained_apart = ("prior_predictor",)

    def frame(self, cond: "Conditioning", draws: Sequence[int] | None = None) -> MDCTFrame:
        """A target roll-off that is absent (cond.rolloff_hz is [B, 1]) is done without; in training
        that of every other draw is, so that the predictor learns to."""
        measured = self.pretransform.level(cond.lr_latent)
        prediction = self.predictor(cond.lr_latent, measured, self._told(cond, draws))
        prior = self.predictor.prior(cond.lr_latent, measured, *prediction)
        return MDCTFrame(bounded(cond.lr_latent / prior.scale), prior, prior.heard())

    def _told(self, cond: "Conditioning", draws: Sequence[int] | None) -> Tensor | None:
        """Normalised roll-offs [B, 2] with NaN where the predictor is to do without f_h."""
        if not self.has_rolloff or cond.rolloff_hz is None:
            return None
        low_hz, target_hz = cond.rolloff_hz[:, :1], cond.rolloff_hz[:, 1:]
        if target_hz.shape[1] == 0:
            target_hz = torch.full_like(low_hz, torch.nan)
        elif draws is not None:
            untold = torch.tensor([[draw % 2 == 0] for draw in draws], device=low_hz.device)
            target_hz = target_hz.masked_fill(untold, torch.nan)
        return hz_to_unit(torch.cat([low_hz, target_hz], dim=1), self.sample_rate)

    def tokens(self, x_t: Tensor, frame: MDCTFrame) -> Tensor:
        shown = torch.cat([bounded(x_t), frame.lr_latent], dim=1)
        return shown + self.embedding(frame.heard)

    def weight(self, frame: MDCTFrame, x_t: Tensor, t: Tensor, hr_end_hz: Tensor) -> Tensor:
        """Errors count in units of the expected level, but where far more is there than was
        expected a share of that, so that a few surprises are not the loss; and nothing above
        the end of the HR clip's own spectrum, where a codec or a dull microphone left nothing."""
        power = F.avg_pool2d(x_t.square()[:, None], 9, 1, 4, count_include_pad=False)[:, 0]
        certain = (frame.prior.std / frame.prior.scale).square()
        return certain * share_of_surprises(power, t) * self.pretransform.content(hr_end_hz)

    def missing(self, frame: MDCTFrame, hr_end_hz: Tensor) -> Tensor:
        """Where the predictor expects more than half of what is there to be missing."""
        missing = (frame.prior.missing_logit > 0).flatten(1)[..., None]
        return missing * self.pretransform.content(hr_end_hz)

    def loss(self, frame: MDCTFrame, hr_latent: Tensor, hr_end_hz: Tensor) -> Tensor:
        measured = self.pretransform.level(frame.prior.mean)
        content = self.pretransform.content(hr_end_hz)
        return self.predictor.loss(hr_latent, frame.prior, measured, content)

    def default_target_hz(self, frame: MDCTFrame, rolloff_low_hz: Tensor) -> Tensor:
        """The roll-off of the spectrum that the predictor expects."""
        unit = amplitude_rolloff(self.pretransform.amplitude(frame.prior.scale))
        return torch.maximum(unit_to_hz(unit, self.sample_rate), rolloff_low_hz)

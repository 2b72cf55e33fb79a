"""From low-resolution audio to super-resolved audio, one segment per item.

    LR audio --encode--> z_l --+
             --roll-off-> f_l --+--> condition --> sample (eq. 4) --> decode --> crossover --> SR
    text, target roll-off f_h --+

Validation, upsampling and evaluation all call this; a file of any length is many segments that are
sampled together (`saga_sr.upsample.windows`).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from saga_sr.config import ModelConfig, SamplingSection
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.rolloff import spectral_rolloff, unit_to_hz
from saga_sr.sampler import (
    Branch,
    Evaluation,
    guidance_terms,
    linear_quadratic_schedule,
    plan,
    sample,
)
from saga_sr.support.randomness import torch_generator


def segment_noise(config: ModelConfig, keys: Sequence[tuple[int | str, ...]]) -> Tensor:
    """Standard normal noise [B, D, L], item i a function of ``keys[i]`` alone."""
    shape = (config.latent_dim, config.latent_length)
    return torch.stack([torch.randn(shape, generator=torch_generator(*key)) for key in keys])


def condition(
    model: SAGASRModel,
    lr_audio: Tensor,
    text: Tensor | None = None,
    target_rolloff_hz: Tensor | None = None,
    passband_hz: Tensor | None = None,
) -> Conditioning:
    """What the model is conditioned on at inference.

    Args:
        model: decides by its stage which conditions exist.
        lr_audio: [B, C, T], T = one segment.
        text: [B, N, T5 width]; None is no text.
        target_rolloff_hz: [B], f_h; None is the model's default.
        passband_hz: [B], up to where the audio is the truth; a model of patches needs it.
    """
    config = model.config
    if not config.stage.text:
        text = None
    elif text is None:
        settings = config.text
        assert settings is not None  # a stage with text has its encoder's settings
        text = lr_audio.new_zeros(lr_audio.shape[0], settings.max_length, settings.dim)
    cond = Conditioning(model.encode(lr_audio), text, passband_hz=passband_hz)
    if not config.stage.rolloff:
        return replace(cond, frame=model.frame(cond))
    low_hz = spectral_rolloff(lr_audio, config.sample_rate)
    default = config.sampling.target_rolloff
    if target_rolloff_hz is None and default is not None:
        target_rolloff_hz = unit_to_hz(default, config.sample_rate).expand(len(low_hz))
    if target_rolloff_hz is not None:
        cond = replace(cond, rolloff_hz=torch.stack([low_hz, target_rolloff_hz.to(low_hz)], dim=1))
        return replace(cond, frame=model.frame(cond))
    frame = model.frame(replace(cond, rolloff_hz=low_hz[:, None]))
    target_hz = model.family.default_target_hz(frame, low_hz)
    return replace(cond, rolloff_hz=torch.stack([low_hz, target_hz], dim=1), frame=frame)


def guidance(sampling: SamplingSection, cond: Conditioning) -> list[tuple[float, Branch]]:
    """Eq. (4) for a batch: the text branch exists where any item has text."""
    has_text = cond.text is not None and bool((cond.text != 0).any())
    return guidance_terms(sampling.guidance_acoustic, sampling.guidance_text, has_text)


def solver_plan(sampling: SamplingSection) -> list[Evaluation]:
    """The evaluations of the DiT that ``sampling`` asks for, eq. (4) counted as one."""
    times = linear_quadratic_schedule(sampling.num_steps, sampling.emulate_linear_steps)
    return plan(sampling.solver, times)


def generate(
    model: SAGASRModel, cond: Conditioning, noise: Tensor, sampling: SamplingSection
) -> Tensor:
    """Sample latents [B, D, L] from standard normal ``noise`` [B, D, L]."""
    frame = model.frame(cond)
    cond = replace(cond, frame=frame)
    terms = guidance(sampling, cond)

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        return model.guided_velocity(x_t, t, cond, terms)

    return frame.leave(sample(velocity, noise, solver_plan(sampling)))


@torch.no_grad()
def restore(
    model: SAGASRModel, cond: Conditioning, noise: Tensor, sampling: SamplingSection
) -> Tensor:
    """Super-resolve segments, without the crossover (see `saga_sr.lowfreq` for that last step).

    Args:
        model: in evaluation mode.
        cond: what the segments are conditioned on: of `condition`, or with the truth's roll-offs.
        noise: [B, D, L], see `segment_noise`.
        sampling: solver, steps and guidance scales.

    Returns:
        [B, C, T] as the model generates it, its own low band included.
    """
    return model.decode(generate(model, cond, noise.to(cond.lr_latent.device), sampling))

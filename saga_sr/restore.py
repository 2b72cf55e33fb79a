"""From low-resolution audio to super-resolved audio, one segment per item.

    LR audio --encode--> z_l --+
             --roll-off-> f_l --+--> condition --> sample (eq. 4) --> decode --> crossover --> SR
    text, target roll-off f_h --+

Validation, upsampling and evaluation all call this; a file of any length is many segments that are
sampled together (`saga_sr.windows`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from saga_sr.config import ModelConfig, SamplingSection
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.randomness import torch_generator
from saga_sr.rolloff import spectral_rolloff, unit_to_hz
from saga_sr.sampler import (
    Branch,
    Evaluation,
    guidance_terms,
    linear_quadratic_schedule,
    plan,
    sample,
)


def segment_noise(config: ModelConfig, keys: Sequence[tuple[int | str, ...]]) -> Tensor:
    """Standard normal noise [B, D, L], item i a function of ``keys[i]`` alone."""
    shape = (config.latent_dim, config.latent_length)
    return torch.stack([torch.randn(shape, generator=torch_generator(*key)) for key in keys])


def condition(
    model: SAGASRModel,
    lr_audio: Tensor,
    text: Tensor | None = None,
    target_rolloff_hz: Tensor | None = None,
) -> Conditioning:
    """What the model is conditioned on at inference.

    Args:
        model: decides by its stage which conditions exist.
        lr_audio: [B, C, T], T = one segment.
        text: [B, N, T5 width]; None is no text.
        target_rolloff_hz: [B], f_h; None is the model's default.
    """
    config = model.config
    lr_latent, rolloff_hz = model.encode(lr_audio), None
    if config.stage.rolloff:
        measured_hz = spectral_rolloff(lr_audio, config.sample_rate)
        default = config.sampling.target_rolloff
        if target_rolloff_hz is None and default is not None:
            target_rolloff_hz = unit_to_hz(default, config.sample_rate).expand(len(measured_hz))
        elif target_rolloff_hz is None:
            target_rolloff_hz = model.expected_rolloff_hz(lr_latent, measured_hz)
        rolloff_hz = torch.stack([measured_hz, target_rolloff_hz.to(measured_hz)], dim=1)
    if not config.stage.text:
        text = None
    elif text is None:
        settings = config.text
        assert settings is not None  # a stage with text has its encoder's settings
        text = lr_audio.new_zeros(lr_audio.shape[0], settings.max_length, settings.dim)
    return Conditioning(lr_latent, text, rolloff_hz)


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
    terms = guidance(sampling, cond)

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        return model.guided_velocity(x_t, t, cond, terms)

    return sample(velocity, model.noise_level(cond) * noise, solver_plan(sampling))


@torch.no_grad()
def restore(
    model: SAGASRModel,
    lr_audio: Tensor,
    noise: Tensor,
    sampling: SamplingSection,
    text: Tensor | None = None,
    target_rolloff_hz: Tensor | None = None,
) -> Tensor:
    """Super-resolve segments, without the crossover (see `saga_sr.lowfreq` for that last step).

    Args:
        model: in evaluation mode.
        lr_audio: [B, C, T], one segment per item, in [-1, 1].
        noise: [B, D, L], see `segment_noise`.
        sampling: solver, steps and guidance scales.
        text: [B, N, T5 width] or None.
        target_rolloff_hz: [B] or None for the model's default.

    Returns:
        [B, C, T] as the model generates it, its own low band included.
    """
    cond = condition(model, lr_audio, text, target_rolloff_hz)
    return model.decode(generate(model, cond, noise.to(lr_audio.device), sampling))

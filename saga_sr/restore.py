"""Inference, from low-resolution to super-resolved audio, one segment per item.

    LR audio --encode--> z_l --+
             --roll-off-> f_l --+--> condition --> sample (eq. 4) --> decode --> crossover --> SR
    text, target roll-off f_h --+

`SAGASRModel.condition` makes the conditions, `restore` what follows but the crossover
(`saga_sr.lowfreq`). A file of any length is many segments that are sampled together
(`saga_sr.upsample.longform`).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from saga_sr.config import ModelConfig, SamplingSection
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance, sample, solver_plan
from saga_sr.support.randomness import torch_generator


def segment_noise(config: ModelConfig, keys: Sequence[tuple[int | str, ...]]) -> Tensor:
    """Standard normal noise [B, D, L], item i a function of ``keys[i]`` alone."""
    shape = (config.latent_dim, config.latent_length)
    return torch.stack([torch.randn(shape, generator=torch_generator(*key)) for key in keys])


def generate(
    model: SAGASRModel, cond: Conditioning, noise: Tensor, sampling: SamplingSection
) -> Tensor:
    """Sample latents [B, D, L] from standard normal ``noise`` [B, D, L]."""
    frame = model.family.louder(model.frame(cond), sampling.level_gain_db)
    cond = replace(cond, frame=frame)
    terms = guidance(sampling, cond.text)

    def velocity(x_t: Tensor, t: Tensor, until: Tensor) -> Tensor:
        return model.guided_velocity(x_t, t, cond, terms, until)

    start = model.family.start(noise, sampling.level_temperature)
    return frame.leave(sample(velocity, start, solver_plan(sampling)))


@torch.no_grad()
def restore(
    model: SAGASRModel, cond: Conditioning, noise: Tensor, sampling: SamplingSection
) -> Tensor:
    """Super-resolve segments, without the crossover (see `saga_sr.lowfreq` for that last step).

    Args:
        model: in evaluation mode.
        cond: of B segments, from `SAGASRModel.condition` or as in training.
        noise: [B, D, L], see `segment_noise`.
        sampling: solver, steps and guidance scales.

    Returns:
        [B, C, T] as the model generates it, its own low band included.
    """
    return model.decode(generate(model, cond, noise.to(cond.lr_latent.device), sampling)).float()

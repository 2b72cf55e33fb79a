"""AdamW and the learning rate's course (paper, section 3: InverseLR)."""

from collections.abc import Callable
from functools import partial

import torch

from saga_sr.config import InverseLR


def adamw(name: str) -> Callable[..., torch.optim.Optimizer]:
    """AdamW with its two moments in float32, or in one byte each."""
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # an extra

        return AdamW8bit
    return partial(torch.optim.AdamW, fused=True)


def learning_rate_factor(
    schedule: InverseLR, learning_rate: float, max_steps: int, step: int
) -> float:
    """InverseLR as a factor of the base rate after ``step`` steps, with the optional cooldown.

    stable-audio-tools' own class raises on torch 2.11; its formula stands in `config.InverseLR`.
    """
    warmup = 1 - schedule.warmup ** (step + 1)
    decay = (1 + step / schedule.inv_gamma) ** -schedule.power
    factor = warmup * max(schedule.final_lr / learning_rate, decay)
    cooldown_steps = schedule.cooldown_fraction * max_steps
    if cooldown_steps:
        factor *= min(1.0, max(0, max_steps - step) / cooldown_steps)
    return factor

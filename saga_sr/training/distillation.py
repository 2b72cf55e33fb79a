"""The training step of a student (`saga_sr.distill`), whose velocity is a teacher's."""

from dataclasses import replace
from math import inf

import torch
from torch import Tensor

from saga_sr.distill import draw_step, mean_velocity
from saga_sr.flow import interpolate, weighted_mean
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance
from saga_sr.support.randomness import torch_generator
from saga_sr.training.module import Batch, TrainingModule


def learn_from(
    teacher: SAGASRModel,
    module: TrainingModule,
    batch: Batch,
    drawn: tuple[Tensor, Conditioning, Tensor, Tensor],
) -> Tensor:
    """What a step of the student minimises.

    Args:
        teacher: frozen, in evaluation mode.
        module: of the student.
        batch: as `SAGASRTrainer.training_step` gets it.
        drawn: of it the HR latent [B, D, L], the conditions, noise [B, D, L] and which texts are
            dropped [B]; the LR latent never is, since a student has no other branch.
    """
    z_h, cond, noise, drop_text = drawn
    if cond.text is not None:
        cond = replace(cond, text=cond.text.masked_fill(drop_text[:, None, None], 0.0))
    terms = guidance(teacher.config.sampling, cond.text)

    def teach(x: Tensor, at: Tensor, _: Tensor) -> Tensor:
        return teacher.guided_velocity(x, at, cond, terms)

    t, until = _steps(module, batch, noise)
    x_t = interpolate(cond.frame.enter(z_h), noise, t)
    answer = module.model.velocity(x_t, t, cond, until=until)
    error = answer.float() - mean_velocity(teach, x_t, t, until)
    # What a teacher says above the end of a clip's spectrum is an answer too.
    weight = module.model.family.weight(cond.frame, x_t, t, torch.full_like(t, inf))
    loss = weighted_mean(error.square(), weight)
    return module.counted(batch, loss, torch.zeros_like(loss))


def _steps(module: TrainingModule, batch: Batch, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the steps of a batch begin and end, [B] each: functions of (seed, draw)."""
    made_for = module.config.model.diffusion.student_steps or ()
    keys = (("distil", module.options.seed, item["draw"]) for item in batch[1])
    steps = [draw_step(made_for, torch_generator(*key)) for key in keys]
    return torch.tensor(steps, device=like.device).unbind(dim=1)  # type: ignore[return-value]

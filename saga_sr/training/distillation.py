"""The training step of a student (`saga_sr.distill`), whose velocity is a teacher's."""

from dataclasses import replace
from functools import partial
from math import inf

import torch
from torch import Tensor

from saga_sr.distill import draw_step, mean_velocity, teacher_steps
from saga_sr.flow import interpolate, weighted_mean
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import Branch, guidance
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
    made_for = module.config.model.diffusion.student_steps or ()
    keys = (("distil", module.options.seed, item["draw"]) for item in batch[1])
    steps = [draw_step(made_for, torch_generator(*key)) for key in keys]
    t, until = torch.tensor(steps, device=noise.device).T
    # Noise is what sampling starts from: a student never meets any other.
    start = module.model.family.start(noise, teacher.config.sampling.level_temperature)
    x_t = interpolate(cond.frame.enter(z_h), start, t)
    answer = module.model.velocity(x_t, t, cond, until=until)
    error = answer.float() - _taught(teacher, cond, x_t, steps, module.options.teacher_steps)
    # What a teacher says above the end of a clip's spectrum is an answer too.
    weight = module.model.family.weight(cond.frame, x_t, t, torch.full_like(t, inf))
    each = weighted_mean(error.square(), weight, dim=(1, 2))  # or it hung on who shares a batch
    return module.counted(batch, each.mean())


def _taught(
    teacher: SAGASRModel,
    cond: Conditioning,
    x_t: Tensor,
    steps: list[tuple[float, float]],
    whole: int,
) -> Tensor:
    """The right answers [B, D, L], worked out together where the teacher takes as many steps."""
    taught = torch.empty_like(x_t)
    counts = [teacher_steps(*step, whole) for step in steps]
    for count in sorted(set(counts)):
        chosen = [item for item, own in enumerate(counts) if own == count]
        some = cond[chosen]
        t, until = torch.tensor([steps[item] for item in chosen], device=x_t.device).T
        terms = guidance(teacher.config.sampling, some.text)
        velocity = partial(_guided, teacher, some, terms)
        taught[chosen] = mean_velocity(velocity, x_t[chosen], t, until, count)
    return taught


def _guided(
    teacher: SAGASRModel,
    cond: Conditioning,
    terms: list[tuple[float, Branch]],
    x: Tensor,
    t: Tensor,
    _: Tensor,
) -> Tensor:
    return teacher.guided_velocity(x, t, cond, terms)

"""Distillation: a student that goes in one step where its teacher goes in many.

A step goes from t down to ``until``, one of N equal ones between noise and data. What the student
answers is the mean velocity over it,

    u(x_t, t, until) = (x_t - x_until) / (t - until),   so that Euler's step is exact,

x_until being where the teacher's guided flow (eq. (4)) takes x_t. That flow is an ordinary
differential equation, so every question has one answer, and least squares find it: nothing is
averaged over what could be, as it is where a model of few steps is fitted to data and noise that
do not belong together. x_t is where training takes it, on the straight path from data to noise.

The student is the teacher's network. It also hears how long its step is
(`SAGASRModel.step_embed`, zero at the start), and of eq. (4) it needs one branch, because what it
learns has been guided already. Half of its lessons are steps of the grids that it is made for, half
are of finer ones; with those, more steps than it was made for are allowed.

Sources: the solution of a teacher's flow as a target, in ever fewer steps, and guidance in it:
progressive distillation (Salimans and Ho 2022, arXiv 2202.00512; Meng et al. 2023, 2210.03142). One
network for all steps, told how long they are, that answers the mean velocity: shortcut models
(Frans et al. 2024, 2410.12557), mean flows (Geng et al. 2025, 2505.13447). Those learn long steps
from their own shorter ones; here all are the teacher's, whose errors do not add up.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from saga_sr.sampler import Velocity, linear_quadratic_schedule, plan, sample

FINER = 4  # times the most steps of a student: the finest grid of its lessons
TEACHER_SOLVER = "midpoint"  # of second order without a past: two halves are the whole


def draw_step(steps: Sequence[int], generator: torch.Generator) -> tuple[float, float]:
    """A random step of the student.

    Args:
        steps: the numbers of steps it is made for; with even odds a finer grid takes their place.
        generator: a CPU generator, see `saga_sr.support.randomness`.

    Returns:
        t in (0, 1] and where the step ends, in [0, t).
    """
    finer = [max(steps) * 2**k for k in range(1, FINER.bit_length())]
    odd, grid, place = torch.rand(3, generator=generator).tolist()
    grids = steps if odd < 0.5 else finer
    count = grids[int(grid * len(grids))]
    left = int(place * count)  # steps that are left after this one
    return (left + 1) / count, left / count


def teacher_steps(t: float, until: float, whole: int) -> int:
    """How many steps the teacher takes from ``t`` to ``until``: its share of the ``whole`` from
    noise to data, but one at least."""
    return max(round(whole * (t - until)), 1)


@torch.no_grad()
def mean_velocity(velocity: Velocity, x_t: Tensor, t: Tensor, until: Tensor, steps: int) -> Tensor:
    """What the student should answer: the mean of the teacher's velocity from ``t`` to ``until``.

    Args:
        velocity: of the teacher, guided.
        x_t: [B, ...].
        t, until: [B], 0 <= until < t <= 1.
        steps: of the teacher, even ones of two evaluations.

    Returns:
        (x_t - x_until) / (t - until), shaped like ``x_t``.
    """
    length = t - until
    per_item = length.reshape(-1, *[1] * (x_t.dim() - 1))

    def over_the_step(x: Tensor, part: Tensor, part_until: Tensor) -> Tensor:
        """The same flow in a time that falls from 1 at ``t`` to 0 at ``until``."""
        at, end = until + part * length, until + part_until * length
        return per_item * velocity(x, at, end)

    times = linear_quadratic_schedule(steps, steps)  # even ones
    x_until = sample(over_the_step, x_t, plan(TEACHER_SOLVER, times))
    return (x_t - x_until) / per_item

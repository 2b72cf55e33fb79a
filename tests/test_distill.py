"""Distillation on a flow that is known: a mixture of Gaussians on a line.

There x_t is a mixture too, with all it takes to write down the velocity; and since the flow keeps
the order of points, it takes a quantile of x_t to the same quantile of x_until.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from saga_sr.distill import FINER, draw_step, mean_velocity, teacher_steps
from saga_sr.flow import interpolate
from saga_sr.sampler import linear_quadratic_schedule, plan, sample
from saga_sr.support.randomness import torch_generator

MEANS, STD = torch.tensor([-2.0, 0.5, 1.5]), 0.15
SHARES = torch.tensor([0.5, 0.2, 0.3])
MADE_FOR = (1, 2, 4)
LESSONS = 1000


def _parts(t: Tensor) -> tuple[Tensor, Tensor]:
    """Means [B, K] and deviations [B, 1] of the mixture that x_t is."""
    t = t[:, None]
    return (1 - t) * MEANS, (((1 - t) * STD) ** 2 + t**2).sqrt()


def velocity(x: Tensor, t: Tensor, until: Tensor | None = None) -> Tensor:
    """E[noise - data | x_t] of x [B, 1]."""
    means, std = _parts(t)
    away = x - means
    share = (SHARES.log() - std.log() - (away / std).square() / 2).softmax(dim=1)
    data = MEANS + (1 - t[:, None]) * STD**2 / std**2 * away
    noise = t[:, None] / std**2 * away
    return (share * (noise - data)).sum(dim=1, keepdim=True)


def _below(x: Tensor, t: Tensor) -> Tensor:
    """The share of the mixture at ``t`` that lies below x [B, 1]."""
    means, std = _parts(t)
    return (SHARES * torch.special.ndtr((x - means) / std)).sum(dim=1, keepdim=True)


def flow(x: Tensor, t: Tensor, until: Tensor) -> Tensor:
    """Where the flow takes x [B, 1] from ``t``, by bisection."""
    share = _below(x, t)
    low, high = torch.full_like(x, -8.0), torch.full_like(x, 8.0)
    for _ in range(40):
        middle = (low + high) / 2
        is_low = _below(middle, until) < share
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return (low + high) / 2


def draw(count: int, *key: int | str) -> tuple[Tensor, Tensor, Tensor]:
    """(x_t [B, 1], t, until) of ``count`` random steps, in float64."""
    generator = torch_generator("mixture", *key)
    steps = [draw_step(MADE_FOR, generator) for _ in range(count)]
    t, until = torch.tensor(steps, dtype=torch.float64).T
    which = torch.multinomial(SHARES, count, replacement=True, generator=generator)
    data = MEANS[which] + STD * torch.randn(count, generator=generator)
    noise = torch.randn(count, 1, generator=generator)
    return interpolate(data[:, None], noise, t).double(), t, until


def test_the_mean_velocity_leads_to_where_the_flow_ends() -> None:
    x_t, t, until = draw(500, "exact")
    exact = (x_t - flow(x_t, t, until)) / (t - until)[:, None]
    errors = [
        (mean_velocity(velocity, x_t, t, until, n) - exact).square().mean().sqrt().item()
        for n in (4, 128, 256)
    ]
    assert errors[0] < 0.3 * exact.std()  # steps of length 1 in four steps are among them
    assert errors[2] < 0.002
    assert 2.5 < errors[1] / errors[2] < 5.5  # of second order


def test_steps_are_those_of_the_grids_and_a_function_of_their_key() -> None:
    generator = torch_generator("steps", 1)
    steps = [draw_step(MADE_FOR, generator) for _ in range(3000)]
    counts = [1 / (t - until) for t, until in steps]
    assert {round(count) for count in counts} == {1, 2, 4, 8, 16}
    assert max(counts) == max(MADE_FOR) * FINER
    assert all(0 <= until < t <= 1 for t, until in steps)
    assert all(
        math.isclose(t * count, round(t * count))
        for (t, _), count in zip(steps, counts, strict=False)
    )
    assert sum(count <= 4 for count in counts) / len(counts) == pytest.approx(0.5, abs=0.05)
    assert {t for t, until in steps if t - until == 0.25} == {0.25, 0.5, 0.75, 1.0}
    taken = {round(1 / (t - until)): teacher_steps(t, until, 8) for t, until in steps}
    assert taken == {1: 8, 2: 4, 4: 2, 8: 1, 16: 1}
    again = torch_generator("steps", 1)
    assert steps[:5] == [draw_step(MADE_FOR, again) for _ in range(5)]


class _Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(11, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 1)
        )

    def forward(self, x: Tensor, t: Tensor, until: Tensor) -> Tensor:
        phases = torch.stack([t, t - until], dim=1) * math.pi
        known = [x, *(f(k * phases) for f in (torch.sin, torch.cos) for k in (0.5, 1))]
        return self.layers(torch.cat([*known, phases], dim=1))


def _distance(x: Tensor, quantiles: Tensor) -> float:
    """Wasserstein-1 distance of samples [B, 1] from what has these quantiles [B]."""
    return (x[:, 0].sort().values - quantiles).abs().mean().item()


def even_times(steps: int) -> list[float]:
    return linear_quadratic_schedule(steps, steps)


def test_a_student_of_few_steps_samples_the_mixture_and_no_solver_does() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = _Student()
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, LESSONS)
    pool = [value.float() for value in draw(8000, "lessons")]
    taught = mean_velocity(velocity, *pool, steps=32)
    generator = torch_generator("order")
    for _ in range(LESSONS):
        chosen = torch.randint(len(taught), (256,), generator=generator)
        answer = student(*(value[chosen] for value in pool))
        loss = (answer - taught[chosen]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    noise = torch.randn(2000, 1, generator=torch_generator("samples"))
    ranks = (torch.arange(2000) + 0.5) / 2000
    quantiles = flow(torch.special.ndtri(ranks)[:, None], torch.ones(1), torch.zeros(1))[:, 0]
    for steps in (*MADE_FOR, 8):
        with torch.no_grad():
            own = sample(student, noise, plan("euler", even_times(steps)))
        ours = _distance(own, quantiles)
        solvers = {name: steps for name in ("euler", "ab2")}
        if steps % 2 == 0:
            solvers |= {"midpoint": steps // 2, "heun": steps // 2}
        theirs = [
            _distance(sample(velocity, noise, plan(name, even_times(n))), quantiles)
            for name, n in solvers.items()
        ]
        assert ours < 0.15, steps  # the data's deviation is 1.7
        assert ours < min(theirs) or steps not in MADE_FOR, (steps, ours, theirs)

import math
from itertools import pairwise

import pytest
import torch

from saga_sr.sampler import (
    SOLVERS,
    Branch,
    Evaluation,
    guidance_terms,
    linear_quadratic_schedule,
    plan,
    sample,
)
from saga_sr.support.randomness import torch_generator

NOISE = torch.randn(3, 2, 4, generator=torch_generator("noise"), dtype=torch.float64)


# ---------------------------------------------------------------------------- schedule
@pytest.mark.parametrize(
    ("steps", "emulated"), [(1, None), (2, None), (7, None), (8, 9), (24, 60), (100, 250)]
)
def test_schedule_falls_strictly_from_1_to_0(steps, emulated):
    times = linear_quadratic_schedule(steps, emulated)
    assert len(times) == steps + 1
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert all(t > t_next for t, t_next in pairwise(times))


def test_schedule_follows_the_formula_of_the_paper():
    times = linear_quadratic_schedule(100)
    for k in range(51):
        assert times[k] == pytest.approx(1 - k / 250, abs=1e-12)
    for j in range(1, 51):
        expected = 1 - (50 + j) / 250 - (250 - 100) * j**2 / (250 * 50**2)
        assert times[50 + j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("emulated", [3, 10])
def test_schedule_without_room_for_a_curve_is_linear(emulated):
    expected = [1 - k / 10 for k in range(11)]
    assert linear_quadratic_schedule(10, emulated) == pytest.approx(expected, abs=1e-12)


def test_schedule_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="num_steps is 0"):
        linear_quadratic_schedule(0)


# ---------------------------------------------------------------------------- solvers
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_is_exact_on_a_constant_velocity(solver):
    target = torch.randn(NOISE.shape, generator=torch_generator("x"), dtype=torch.float64)
    evaluations = plan(solver, linear_quadratic_schedule(5))
    found = sample(lambda x, t, until: NOISE - target, NOISE, evaluations)
    assert torch.allclose(found, target, atol=1e-12)


def _error(solver: str, steps: int) -> float:
    """x' = -2 t x + cos 3t on a schedule of unequal steps, against a solution of 2,000 steps."""

    def velocity(x, t, until):
        t = t.reshape(-1, 1, 1)
        return -2 * t * x + torch.cos(3 * t)

    def solve(name, n):
        return sample(velocity, NOISE, plan(name, linear_quadratic_schedule(n)))

    return (solve(solver, steps) - solve("midpoint", 2_000)).abs().max().item()


@pytest.mark.parametrize(
    ("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("ab2", 2)]
)
def test_solver_converges_at_its_order(solver, order):
    measured = math.log2(_error(solver, 32) / _error(solver, 64))
    assert measured == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("solver", "per_step"), [("euler", 1), ("ab2", 1), ("midpoint", 2)])
def test_plan_costs_what_the_solver_says(solver, per_step):
    evaluations = plan(solver, linear_quadratic_schedule(6))
    assert len(evaluations) == 6 * per_step
    assert sum(evaluation.commits for evaluation in evaluations) == 6


def test_plan_of_an_unknown_solver_says_what_is_allowed():
    with pytest.raises(ValueError, match="euler, midpoint, heun, ab2"):
        plan("rk45", [1.0, 0.0])


def test_sample_asks_for_one_time_per_item_and_reports_progress():
    times, progress = [], []

    def velocity(x, t, until):
        times.append(t)
        return torch.zeros_like(x)

    plan_ = [Evaluation(1.0, -0.5, 0.0, True), Evaluation(0.5, -0.5, 0.0, True)]
    sample(velocity, NOISE, plan_, callback=lambda done, x: progress.append((done, x.shape)))
    assert [t.tolist() for t in times] == [[1.0] * 3, [0.5] * 3]
    assert progress == [(1, NOISE.shape), (2, NOISE.shape)]


# ---------------------------------------------------------------------------- guidance
def _velocity_by_equation_4(u, s_a, s_t, c):
    return u[0, 0] + s_a * (u[1, 0] - u[0, 0]) + s_t * (u[1, c] - u[1, 0])


@pytest.mark.parametrize("has_text", [True, False])
@pytest.mark.parametrize(("s_a", "s_t"), [(1.4, 1.2), (1.0, 1.0), (1.3, 1.3), (0.0, 2.0), (1, 3)])
def test_guidance_terms_equal_equation_4(s_a, s_t, has_text):
    u = torch.randn(2, 2, generator=torch_generator("u"), dtype=torch.float64)
    terms = guidance_terms(s_a, s_t, has_text)
    found = sum(weight * u[int(branch.lr), int(branch.text)] for weight, branch in terms)
    assert found.item() == pytest.approx(
        _velocity_by_equation_4(u, s_a, s_t, int(has_text)).item(), abs=1e-12
    )
    assert sum(weight for weight, _ in terms) == pytest.approx(1)


@pytest.mark.parametrize(
    ("s_a", "s_t", "has_text", "cost"),
    [
        (1.4, 1.2, True, 3),
        (1.4, 1.2, False, 2),
        (1.4, 1.4, True, 2),
        (1.0, 1.2, True, 2),
        (1.0, 1.0, True, 1),
        (1.0, 1.2, False, 1),
    ],
)
def test_guidance_terms_merge_branches_and_skip_zeros(s_a, s_t, has_text, cost):
    terms = guidance_terms(s_a, s_t, has_text)
    assert len(terms) == len({branch for _, branch in terms}) == cost
    assert all(weight != 0 for weight, _ in terms)


def test_guidance_terms_at_neutral_scales_are_the_conditional_field():
    assert guidance_terms(1.0, 1.0, True) == [(1.0, Branch(lr=True, text=True))]
    assert guidance_terms(1.0, 1.0, False) == [(1.0, Branch(lr=True, text=False))]

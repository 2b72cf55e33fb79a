from itertools import pairwise

import pytest
import torch

from saga_sr.sampler import linear_quadratic_schedule, plan, sample
from saga_sr.support.choices import SOLVERS
from saga_sr.support.randomness import torch_generator
from saga_sr.upsample.windows import WindowGrid, position_noise, solve_windows

CHANNELS, WINDOW = 3, 16
MIX = torch.randn(WINDOW, WINDOW, generator=torch_generator("mix"), dtype=torch.float64) / 8


def _noise(condition, window_start, start, stop):
    return position_noise(CHANNELS, start, stop, 7).double()


def _mixing_velocity(x, t, until, conditions):
    """Every position depends on its whole window, as in a transformer, and on the condition."""
    shift = torch.tensor(conditions, dtype=x.dtype).reshape(-1, 1, 1)
    return torch.tanh(x @ MIX + shift) + t.reshape(-1, 1, 1) * x


def _solve(length, *, velocity=_mixing_velocity, solver="euler", steps=6, batch=4, log=None):
    grid = WindowGrid.covering(length, WINDOW)
    evaluations = plan(solver, linear_quadratic_schedule(steps))
    pieces = solve_windows(
        grid,
        evaluations,
        velocity,
        lambda k: 0.1 * k,
        _noise,
        batch,
        None if log is None else log.append,
    )
    return torch.cat(list(pieces), dim=-1)


# ---------------------------------------------------------------------------- geometry
@pytest.mark.parametrize("window", [5, 16, 31, 128])
def test_grid_covers_every_length_with_one_or_two_windows_everywhere(window):
    for length in range(1, 6 * window, 3):
        grid = WindowGrid.covering(length, window)
        covered = torch.zeros(grid.length)
        for k in range(grid.count):
            covered[k * grid.hop : k * grid.hop + window] += 1
        assert grid.length >= length
        assert 1 <= covered.min() <= covered.max() <= 2
        assert grid.length - length < window


def test_grid_of_an_axis_no_longer_than_a_window_is_one_window():
    assert [WindowGrid.covering(n, 16).count for n in (1, 15, 16, 17)] == [1, 1, 1, 2]


def test_fade_rises_from_zero_at_the_edge_to_one():
    fade = WindowGrid(window=64, hop=48, count=3, edge=3).fade_in()
    assert fade.shape == (16,)
    assert (fade[:3] == 0).all()
    assert (fade[-3:] == 1).all()
    assert (fade.diff()[3:-3] > 0).all()
    assert torch.allclose(fade + fade.flip(0), torch.ones(16), atol=1e-6)


def test_noise_belongs_to_positions_not_to_requests():
    whole = position_noise(4, 0, 1000, 3, "left")
    assert whole.shape == (4, 1000)
    for start, stop in [(0, 10), (63, 65), (64, 128), (128, 128), (500, 777)]:
        assert torch.equal(position_noise(4, start, stop, 3, "left"), whole[:, start:stop])
    assert not torch.equal(position_noise(4, 0, 10, 4, "left"), whole[:, :10])
    assert whole.std().item() == pytest.approx(1, abs=0.05)


# ---------------------------------------------------------------------------- solving
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_window_equals_a_plain_sample(solver):
    evaluations = plan(solver, linear_quadratic_schedule(6))
    expected = sample(
        lambda x, t, until: _mixing_velocity(x, t, until, [0.0]),
        _noise(None, 0, 0, WINDOW)[None],
        evaluations,
    )
    assert torch.equal(_solve(WINDOW - 3, solver=solver), expected[0])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("length", [17, 100, 1000])
def test_a_velocity_of_each_position_alone_is_solved_as_if_there_were_no_windows(solver, length):
    def velocity(x, t, until, conditions=None):
        return torch.sin(3 * x) + t.reshape(-1, 1, 1) * x

    found = _solve(length, velocity=velocity, solver=solver)
    noise = _noise(None, 0, 0, found.shape[-1])
    expected = sample(velocity, noise[None], plan(solver, linear_quadratic_schedule(6)))[0]
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_batch_of_windows_does_not_change_the_result(solver):
    results = [_solve(300, solver=solver, batch=batch) for batch in (1, 3, 8, 1000)]
    for result in results[1:]:
        assert (result - results[0]).abs().max() < 1e-12


def test_where_windows_disagree_the_result_is_their_blend():
    """Window k pulls every position straight to the value k."""

    def velocity(x, t, until, conditions):
        value = torch.tensor(conditions, dtype=x.dtype).reshape(-1, 1, 1) * 10
        return (x - value) / t.reshape(-1, 1, 1)

    grid = WindowGrid.covering(40, WINDOW)
    found = _solve(40, velocity=velocity)
    for k in range(grid.count):
        own = slice(k * grid.hop + grid.overlap, (k + 1) * grid.hop)
        assert torch.allclose(found[:, own], torch.full_like(found[:, own], k), atol=1e-9)
    shared = found[:, grid.hop : grid.hop + grid.overlap]
    assert torch.allclose(shared, grid.fade_in().double().expand_as(shared), atol=1e-9)


def test_where_windows_want_noise_of_different_levels_it_is_blended():
    """A step of level inside of a file would be heard."""
    grid = WindowGrid.covering(100, WINDOW)

    def noise(condition, _window_start, start, stop):
        return torch.full((2, stop - start), float(condition), dtype=torch.float64)

    evaluations = plan("euler", linear_quadratic_schedule(3))
    still = lambda x, _t, _until, _conditions: torch.zeros_like(x)  # noqa: E731
    found = torch.cat(list(solve_windows(grid, evaluations, still, float, noise, 4)), -1)
    assert found.shape == (2, grid.length)
    for k in range(1, grid.count):
        shared = found[:, k * grid.hop : k * grid.hop + grid.overlap]
        expected = k - 1 + grid.fade_in().double()
        assert torch.allclose(shared, expected.expand_as(shared), atol=1e-6)
        own = found[:, k * grid.hop + grid.overlap : (k + 1) * grid.hop]
        assert (own == k).all()


def test_a_window_evaluates_only_when_its_neighbours_are_as_far():
    """Each call sees, for every window, the state that all its windows have agreed on: rebuilt
    here by Jacobi sweeps over the whole axis, one evaluation after the other."""
    steps, length = 5, 90
    grid = WindowGrid.covering(length, WINDOW)
    times = linear_quadratic_schedule(steps)
    weight = torch.ones(grid.count, WINDOW, dtype=torch.float64)
    weight[1:, : grid.overlap] = grid.fade_in().double()
    weight[:-1, grid.hop :] = 1 - grid.fade_in().double()
    x = _noise(None, 0, 0, grid.length)
    for t, t_next in pairwise(times):
        v = torch.zeros_like(x)
        for k in range(grid.count):
            span = slice(k * grid.hop, k * grid.hop + WINDOW)
            part = _mixing_velocity(x[None, :, span], torch.tensor([t]), None, [0.1 * k])[0]
            v[:, span] += weight[k] * part
        x = x + (t_next - t) * v
    assert torch.allclose(_solve(length, steps=steps), x, atol=1e-9)


def test_pieces_leave_in_order_and_add_up_to_the_axis():
    grid = WindowGrid.covering(200, WINDOW)
    evaluations = plan("euler", linear_quadratic_schedule(4))
    pieces = list(solve_windows(grid, evaluations, _mixing_velocity, float, _noise, batch=3))
    assert [p.shape[-1] for p in pieces] == [grid.hop] * (grid.count - 1) + [WINDOW]


@pytest.mark.parametrize(("steps", "batch"), [(10, 1), (10, 8), (3, 16)])
def test_a_long_axis_keeps_batches_full_and_few_windows_alive(steps, batch):
    grid = WindowGrid.covering(6000, WINDOW)
    entered, calls, most_alive = [], [], 0

    def condition(k):
        entered.append(k)
        return 0.1 * k

    evaluations = plan("euler", linear_quadratic_schedule(steps))
    pieces = solve_windows(
        grid, evaluations, _mixing_velocity, condition, _noise, batch, calls.append
    )
    for left, _ in enumerate(pieces, start=1):
        most_alive = max(most_alive, len(entered) - left)
    assert entered == list(range(grid.count))
    assert sum(calls) == grid.count * steps
    assert most_alive <= steps + batch + 1
    assert sum(calls) / len(calls) > 0.85 * batch


def test_a_short_axis_runs_all_its_windows_in_every_call():
    log: list[int] = []
    _solve(50, batch=8, steps=5, log=log)
    assert log == [WindowGrid.covering(50, WINDOW).count] * 5

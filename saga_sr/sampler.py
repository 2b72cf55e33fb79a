"""Sampling (paper, eq. (4)): schedules, solvers and guidance, without a model in sight.

A solver is a list of `Evaluation`s, one per velocity that it asks for, and every one of them moves
the state the same way: x_next = base + c_now v + c_prev v_prev. That is linear and acts on each
position by itself, so that `sample` can run a whole clip and `saga_sr.upsample.windows` can run the
same list region by region over a file of any length.

Guidance (paper, eq. 4) is a list too: (coefficient, `Branch`) pairs whose coefficients sum to 1,
which `SAGASRModel.guided_velocity` evaluates.
The time convention stands in `saga_sr.flow`: t falls from 1 (noise) to 0 (data).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from saga_sr.support.choices import SOLVERS

if TYPE_CHECKING:
    from saga_sr.config import SamplingSection

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t [B, ...], t [B], until [B]) -> v


# ---------------------------------------------------------------------------- schedule
def linear_quadratic_schedule(
    num_steps: int, emulate_linear_steps: int | None = None
) -> list[float]:
    """The t-schedule of the paper (Movie Gen): short linear steps first, then growing ones.

    With S steps emulating N linear ones and L = floor(S / 2):
    t_k = 1 - k / N up to k = L, then t_(L+j) = 1 - (L + j) / N - (N - S) j^2 / (N (S - L)^2).

    Args:
        num_steps: S, at least 1.
        emulate_linear_steps: N; default 2.5 S (the paper's 100 steps emulate 250). A plain linear
            schedule results where N does not exceed S.

    Returns:
        S + 1 strictly falling times from 1.0 to 0.0.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; at least 1 is needed")
    steps = num_steps
    emulated = 5 * steps // 2 if emulate_linear_steps is None else emulate_linear_steps
    if steps >= emulated:
        return [(steps - k) / steps for k in range(steps + 1)]
    linear = steps // 2
    curve = (emulated - steps) / (steps - linear) ** 2  # quadratic part, in units of 1 / N
    spent = [k + curve * max(k - linear, 0) ** 2 for k in range(steps)]
    return [1 - s / emulated for s in spent] + [0.0]


# ---------------------------------------------------------------------------- solvers
@dataclass(frozen=True)
class Evaluation:
    """One velocity v at time ``t``, and where it takes the state.

    x_next = base + c_now v + c_prev v_prev, v_prev being the velocity of the evaluation before.
    ``commits`` makes x_next the new base; otherwise it is only where the next velocity is taken.
    """

    t: float
    c_now: float
    c_prev: float
    commits: bool

    @property
    def until(self) -> float:
        """Where a step by Euler ends; a student is asked how to get there (`saga_sr.distill`)."""
        return self.t + self.c_now


def _euler(times: list[float]) -> list[Evaluation]:
    return [Evaluation(t, t_next - t, 0.0, True) for t, t_next in pairwise(times)]


def _midpoint(times: list[float]) -> list[Evaluation]:
    evaluations = []
    for t, t_next in pairwise(times):
        half = (t_next - t) / 2
        evaluations += [Evaluation(t, half, 0.0, False), Evaluation(t + half, 2 * half, 0.0, True)]
    return evaluations


def _heun(times: list[float]) -> list[Evaluation]:
    evaluations = []
    for t, t_next in pairwise(times):
        step = t_next - t
        evaluations += [
            Evaluation(t, step, 0.0, False),
            Evaluation(t_next, step / 2, step / 2, True),
        ]
    return evaluations


def _adams_bashforth_2(times: list[float]) -> list[Evaluation]:
    """Two-step Adams-Bashforth for unequal steps; the first step, without a past, is Euler's."""
    steps = [t_next - t for t, t_next in pairwise(times)]
    slopes = [0.0] + [now / (2 * before) for before, now in pairwise(steps)]
    return [
        Evaluation(t, step * (1 + slope), -step * slope, True)
        for t, step, slope in zip(times, steps, slopes, strict=False)
    ]


_PLANS: dict[str, Callable[[list[float]], list[Evaluation]]] = {
    "euler": _euler,
    "midpoint": _midpoint,
    "heun": _heun,
    "ab2": _adams_bashforth_2,
}


def plan(solver: str, times: list[float]) -> list[Evaluation]:
    """The evaluations of ``solver`` over the falling ``times``.

    Euler and AB2 (second order, memory of one velocity) evaluate once a step, midpoint and Heun
    (second order) twice.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}; allowed: {', '.join(SOLVERS)}")
    return _PLANS[solver](times)


def solver_plan(sampling: "SamplingSection") -> list[Evaluation]:
    """The evaluations of the DiT that ``sampling`` asks for, none for 0 steps; eq. (4) is one."""
    if sampling.num_steps == 0:
        return []
    times = linear_quadratic_schedule(sampling.num_steps, sampling.emulate_linear_steps)
    return plan(sampling.solver, times)


class State:
    """Where the integration is: ``x``, wanted by the next evaluation.

    Args:
        noise: the state at the first time, of any shape.
    """

    def __init__(self, noise: Tensor) -> None:
        self.x = self._base = self._v_prev = noise

    def move(self, v: Tensor, evaluation: Evaluation) -> None:
        """Go where ``evaluation`` takes the state with its velocity ``v``, shaped like ``x``."""
        self.x = self._base + evaluation.c_now * v
        if evaluation.c_prev:
            self.x = self.x + evaluation.c_prev * self._v_prev
        if evaluation.commits:
            self._base = self.x
        self._v_prev = v


def sample(
    velocity: Velocity,
    noise: Tensor,
    evaluations: list[Evaluation],
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Integrate ``velocity`` from ``noise`` along ``evaluations``.

    Args:
        velocity: see `Velocity`.
        noise: the state at the first time, [B, ...].
        evaluations: from `plan`.
        callback: called with (number of evaluations done, x) after each.

    Returns:
        The state at the last time, shaped like ``noise``.
    """
    state = State(noise)
    for done, evaluation in enumerate(evaluations, start=1):
        t, until = (noise.new_full(noise.shape[:1], at) for at in (evaluation.t, evaluation.until))
        state.move(velocity(state.x, t, until), evaluation)
        if callback is not None:
            callback(done, state.x)
    return state.x


# ---------------------------------------------------------------------------- guidance
@dataclass(frozen=True)
class Branch:
    """Which conditions an evaluation of the DiT sees; the roll-off is in all of them."""

    lr: bool
    text: bool


def guidance_terms(
    guidance_acoustic: float, guidance_text: float, has_text: bool
) -> list[tuple[float, Branch]]:
    """Paper, eq. (4), as a weighted sum with equal branches merged and empty ones left out.

    u = (1 - s_a) u(0, 0) + (s_a - s_t) u(z_l, 0) + s_t u(z_l, c); without text c is 0 and the last
    two are one. Scales of 1 therefore cost one evaluation, no text at most two.

    Args:
        guidance_acoustic: s_a.
        guidance_text: s_t, without effect where ``has_text`` is false.
        has_text: whether any item has a text condition.

    Returns:
        (coefficient, branch) pairs; the coefficients sum to 1.
    """
    weights = {
        Branch(lr=True, text=has_text): guidance_text if has_text else guidance_acoustic,
        Branch(lr=False, text=False): 1 - guidance_acoustic,
    }
    if has_text:
        weights[Branch(lr=True, text=False)] = guidance_acoustic - guidance_text
    return [(weight, branch) for branch, weight in weights.items() if weight != 0]


def guidance(sampling: "SamplingSection", text: Tensor | None) -> list[tuple[float, Branch]]:
    """Eq. (4) for a batch with the text embeddings [B, N, D]: the text branch exists where any item
    has text, a row that is not zero."""
    has_text = text is not None and bool((text != 0).any())
    return guidance_terms(sampling.guidance_acoustic, sampling.guidance_text, has_text)

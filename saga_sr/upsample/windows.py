"""Windows solved together: one long latent axis, sampled by a model that sees one segment.

The file is one axis of latent positions. Windows of the model's length cover it, each overlapping
its neighbour by half at most, so that a position lies in one window or in two. Where it lies in
two, both windows look at the same state, and the state moves by their velocities blended with
complementary smooth weights: neighbours agree while they are being sampled, and nothing is left to
cross-fade afterwards.

                 window 0             window 2
             |==============|     |==============|
                         |==============|                 a window is the sequence of its regions:
             |.....1.....|2.|..1..|2.|.....               1: moves at once, 2: when both delivered

A window may evaluate step s as soon as its neighbours have delivered step s - 1, and the model
takes a time per item. So a short file runs as one batch of all its windows per step, and a long one
as a slanted front that walks through it: finished latents leave on the left, new windows enter on
the right, only when a batch needs filling, and no more are alive than there are steps plus a batch.
The result does not depend on the order, hence not on the batch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from saga_sr.sampler import Evaluation, State
from saga_sr.support.randomness import torch_generator

Condition = TypeVar("Condition")
_OVERLAP_FRACTION = 0.25  # of a window; more agrees better and costs more windows
_NOISE_BLOCK = 64  # positions drawn from one generator


# ---------------------------------------------------------------------------- geometry
@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of an axis lie.

    Attributes:
        window: positions in a window.
        hop: positions from one window's start to the next's; window / 2 <= hop <= window.
        count: number of windows.
        edge: outermost positions of a window that count for nothing where a neighbour covers them.
    """

    window: int
    hop: int
    count: int
    edge: int = 1

    @classmethod
    def covering(cls, length: int, window: int, edge: int = 1) -> "WindowGrid":
        """The fewest windows that cover ``length`` positions, spread as evenly as halves allow."""
        widest_hop = window - int(window * _OVERLAP_FRACTION)
        count = 1 + math.ceil(max(length - window, 0) / widest_hop)
        even_hop = math.ceil((length - window) / (count - 1)) if count > 1 else window
        return cls(window, max(even_hop, -(-window // 2)), count, edge)

    @property
    def length(self) -> int:
        """Positions from the first window's start to the last one's end."""
        return (self.count - 1) * self.hop + self.window

    @property
    def overlap(self) -> int:
        """Positions that two neighbours share."""
        return self.window - self.hop

    def fade_in(self) -> Tensor:
        """Weights of a window where the one before it overlaps, float32 [overlap], 0 up to 1."""
        edge = min(self.edge, self.overlap // 4)  # leaves half of the overlap to the ramp
        ramp = (torch.arange(self.overlap) - edge + 0.5) / max(self.overlap - 2 * edge, 1)
        return (ramp.clamp(0, 1) * math.pi / 2).sin().square()


def position_noise(channels: int, start: int, stop: int, *key: int | str) -> Tensor:
    """Standard normal noise of the positions [start, stop), float32 [channels, stop - start].

    A position's noise depends on ``key`` and the position alone, not on who asks for it: the start
    of a long file has the noise of a clip.
    """
    first = start // _NOISE_BLOCK
    last = max(-(-stop // _NOISE_BLOCK), first + 1)  # one block even for no position at all
    blocks = [
        torch.randn(channels, _NOISE_BLOCK, generator=torch_generator("noise", *key, block))
        for block in range(first, last)
    ]
    offset = first * _NOISE_BLOCK
    return torch.cat(blocks, dim=-1)[:, start - offset : stop - offset]


# ---------------------------------------------------------------------------- solving
class _Region(State):
    """Positions covered by the same windows; they move when all of these have delivered.

    Args:
        noise: [..., n], the state at the first time.
        windows: how many windows cover the region.
    """

    def __init__(self, noise: Tensor, windows: int) -> None:
        super().__init__(noise)
        self._windows = windows
        self._delivered: list[Tensor] = []

    def deliver(self, weighted_v: Tensor, evaluation: Evaluation) -> None:
        self._delivered.append(weighted_v)
        if len(self._delivered) < self._windows:
            return
        self.move(sum(self._delivered[1:], self._delivered[0]), evaluation)
        self._delivered = []


@dataclass
class _Window(Generic[Condition]):
    regions: list[_Region]
    weights: list[Tensor]  # one per region, [n]
    condition: Condition
    step: int = 0

    def x(self) -> Tensor:
        return torch.cat([region.x for region in self.regions], dim=-1)

    def deliver(self, v: Tensor, evaluation: Evaluation) -> None:
        parts = v.split([region.x.shape[-1] for region in self.regions], dim=-1)
        for region, weight, part in zip(self.regions, self.weights, parts, strict=True):
            region.deliver(weight * part, evaluation)
        self.step += 1


def solve_windows(
    grid: WindowGrid,
    evaluations: list[Evaluation],
    velocity: Callable[[Tensor, Tensor, Tensor, list[Condition]], Tensor],
    condition: Callable[[int], Condition],
    noise: Callable[[Condition, int, int, int], Tensor],
    batch: int,
    callback: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:
    """Sample the whole axis of ``grid`` and yield it from left to right.

    Args:
        grid: where the windows lie.
        evaluations: the solver, from `sampler.plan`; without any the noise is the result.
        velocity: (x [b, ..., window], t [b], where the step ends [b], the b windows' conditions)
            -> v shaped like x.
        condition: condition of window k; called once for each, in order, as windows enter.
        noise: (condition, start of its window, start, stop) -> noise [..., stop - start] on the
            model's device. Windows that share positions want the same noise there, at levels that
            may differ.
        batch: most windows in one call of ``velocity``.
        callback: called with the number of windows of each call of ``velocity``.

    Yields:
        Consecutive finished pieces [..., n] of the axis; they add up to ``grid.length`` positions.
    """
    front = _Front(grid, len(evaluations), condition, noise)
    while front.finished < grid.count:
        if ready := front.ready(batch):  # none where there is nothing to evaluate
            x = torch.stack([window.x() for window in ready])
            asked = [evaluations[window.step] for window in ready]
            t, until = (x.new_tensor([getattr(e, at) for e in asked]) for at in ("t", "until"))
            v = velocity(x, t, until, [window.condition for window in ready])
            for window, part, evaluation in zip(ready, v, asked, strict=True):
                window.deliver(part, evaluation)
            if callback is not None:
                callback(len(ready))
        yield from front.leave()


class _Front(Generic[Condition]):
    """The live windows of a file, from left to right; their steps never rise on the way.

    That is why at most steps + batch + 1 are alive: a window enters only where fewer than a batch
    are ready, and of two neighbours at one step the left one is ready.
    """

    def __init__(
        self,
        grid: WindowGrid,
        num_steps: int,
        condition: Callable[[int], Condition],
        noise: Callable[[Condition, int, int, int], Tensor],
    ) -> None:
        self._grid, self._num_steps = grid, num_steps
        self._condition, self._noise = condition, noise
        self._live: list[_Window[Condition]] = []
        self._fade_in = grid.fade_in()
        self.finished = 0  # windows that have left

    def ready(self, batch: int) -> list[_Window[Condition]]:
        """Up to ``batch`` windows that may evaluate now, leftmost first; admits what it takes."""
        ready = self._ready()
        while len(ready) < batch and self._entered() < self._grid.count:
            self._enter()
            ready = self._ready()
        return ready[:batch]

    def _entered(self) -> int:
        return self.finished + len(self._live)

    def _ready(self) -> list[_Window[Condition]]:
        """Windows whose right neighbour is as far as they are; the left one always is."""
        steps = [window.step for window in self._live]
        # Beyond the last window of the file there is no one to wait for; beyond the last live one
        # there is somebody who has not entered yet.
        steps.append(self._num_steps if self._entered() == self._grid.count else -1)
        return [
            window
            for window, step, after in zip(self._live, steps, steps[1:], strict=False)
            if step < self._num_steps and after >= step
        ]

    def _enter(self) -> None:
        """Admit the next window; it shares the last region of the one before it.

        That one cannot have evaluated yet, so the noise of the shared region may still change: it
        becomes the blend of what the two windows want, which may differ in level.
        """
        grid, index = self._grid, self._entered()
        start = index * grid.hop
        middle = start + (grid.overlap if index > 0 else 0)
        shared = start + (grid.hop if index < grid.count - 1 else grid.window)
        condition = self._condition(index)
        own = _Region(self._noise(condition, start, middle, shared), windows=1)
        regions, weights = [own], [own.x.new_ones(shared - middle)]
        fade_in = self._fade_in.to(own.x)
        if index > 0:
            noise = self._noise(condition, start, start, middle)
            before = self._live[-1]
            common = _Region(before.regions[-1].x.lerp(noise, fade_in.expand_as(noise)), windows=2)
            before.regions[-1] = common
            regions.insert(0, common)
            weights.insert(0, fade_in)
        if index < grid.count - 1:
            noise = self._noise(condition, start, shared, start + grid.window)
            regions.append(_Region(noise, windows=2))
            weights.append(1 - fade_in)
        self._live.append(_Window(regions, weights, condition))

    def leave(self) -> Iterator[Tensor]:
        """Drop finished windows; yield their positions up to the next window's start."""
        while self._live and self._live[0].step == self._num_steps:
            window = self._live.pop(0)
            self.finished += 1
            last = self.finished == self._grid.count
            yield torch.cat([r.x for r in (window.regions if last else window.regions[:-1])], -1)

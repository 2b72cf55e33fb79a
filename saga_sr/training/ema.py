"""Exponential moving average of what is trained; validation and export use it.

decay(n) = min(beta, 1 - (1 + n)^-power) after n optimiser steps, the schedule of
stable-audio-tools (beta 0.9999, power 3/4): short memory while the weights still move fast.
Frozen weights are not averaged, and the average is not a second model but a list of tensors.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from saga_sr.config import EMASection
from saga_sr.training.sharding import cut_like, for_file


class EMA:
    """Average of named parameters.

    Args:
        parameters: (name, parameter) pairs; the names are the keys of `state_dict`.
        section: beta and power.
        on_cpu: keep the averages in the machine's memory, wherever the parameters are; otherwise
            they follow the parameters.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        section: EMASection,
        on_cpu: bool = False,
    ) -> None:
        self.section = section
        self.on_cpu = on_cpu
        self.parameters = dict(parameters)
        self.averages = {n: p.detach().clone() for n, p in self.parameters.items()}

    def decay(self, step: int) -> float:
        """Decay of the update after optimiser step ``step`` (counted from 1)."""
        return min(self.section.beta, 1 - (1 + step) ** -self.section.power)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters, as they are after ``step`` steps."""
        weight = 1 - self.decay(step)
        if self.on_cpu:
            for name, parameter in self.parameters.items():  # one by one: no second copy of all
                self.averages[name].lerp_(parameter.detach().cpu(), weight)
            return
        self._follow_the_parameters()
        current = [parameter.detach() for parameter in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), current, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the parameters hold the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            average = self.averages[name]
            self.averages[name] = parameter.detach().to(average.device, copy=True)
            parameter.copy_(average)

    def _follow_the_parameters(self) -> None:
        for name, parameter in self.parameters.items():
            self.averages[name] = self.averages[name].to(parameter.device)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: for_file(value) for name, value in self.averages.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore averages of the same parameters.

        Raises:
            KeyError: a parameter is missing from ``state``.
        """
        for name, average in self.averages.items():
            self.averages[name] = cut_like(state[name], average)

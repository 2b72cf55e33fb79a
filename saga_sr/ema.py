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


class EMA:
    """Average of named parameters.

    Args:
        parameters: (name, parameter) pairs; the names are the keys of `state_dict`.
        section: beta and power.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], section: EMASection) -> None:
        self.section = section
        self.parameters = dict(parameters)
        self.averages = {n: p.detach().clone() for n, p in self.parameters.items()}

    def decay(self, step: int) -> float:
        """Decay of the update after optimiser step ``step`` (counted from 1)."""
        return min(self.section.beta, 1 - (1 + step) ** -self.section.power)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters, as they are after ``step`` steps."""
        averages = list(self.averages.values())
        current = [p.detach() for p in self.parameters.values()]
        if averages and averages[0].device != current[0].device:
            self._to(current[0].device)
            averages = list(self.averages.values())
        torch._foreach_lerp_(averages, current, 1 - self.decay(step))

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
            average = self.averages[name].to(parameter.device)
            self.averages[name] = parameter.detach().clone()
            parameter.copy_(average)

    def _to(self, device: torch.device) -> None:
        self.averages = {name: value.to(device) for name, value in self.averages.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.averages)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore averages of the same parameters.

        Raises:
            KeyError: a parameter is missing from ``state``.
        """
        self.averages = {name: state[name].clone() for name in self.parameters}

"""The average of the weights."""

import copy

import pytest
import torch
from torch import nn

from saga_sr.config import EMASection
from saga_sr.training.ema import EMA


def _linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def test_decay_follows_the_schedule_of_stable_audio_tools() -> None:
    ema = EMA(_linear().named_parameters(), EMASection(beta=0.999, power=0.75))
    assert ema.decay(1) == pytest.approx(1 - 2**-0.75)
    assert ema.decay(100) == pytest.approx(1 - 101**-0.75)
    assert ema.decay(10**9) == 0.999


def test_average_is_the_running_mean_that_the_decay_says() -> None:
    layer = _linear()
    ema = EMA(layer.named_parameters(), EMASection())
    expected = layer.weight.detach().clone()
    for step in range(1, 6):
        layer.weight.data += 1.0
        ema.update(step)
        expected = ema.decay(step) * expected + (1 - ema.decay(step)) * layer.weight.detach()
    torch.testing.assert_close(ema.averages["weight"], expected)


def test_applied_swaps_and_restores_even_after_an_error() -> None:
    layer = _linear()
    ema = EMA(layer.named_parameters(), EMASection())
    layer.weight.data += 1.0
    ema.update(1)
    before, average = copy.deepcopy(layer.state_dict()), ema.averages["weight"].clone()
    inside = []

    def fail() -> None:
        with ema.applied():
            inside.append(torch.equal(layer.weight, average))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert inside == [True]
    assert torch.equal(layer.weight, before["weight"])
    assert torch.equal(ema.averages["weight"], average)


def test_state_survives_a_round_trip() -> None:
    ema = EMA(_linear(0).named_parameters(), EMASection())
    other = EMA(_linear(1).named_parameters(), EMASection())
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.averages["weight"], ema.averages["weight"])
    with pytest.raises(KeyError):
        other.load_state_dict({})

"""The stretched residual units are stable-audio-tools' own, wherever a stretch begins and ends."""

import pytest
import torch
from stable_audio_tools.models.autoencoders import EncoderBlock
from stable_audio_tools.models.autoencoders import ResidualUnit as TheirUnit
from torch import Tensor, nn

from saga_sr.support import snake
from saga_sr.support.snake import replace_snakes

CHANNELS = 8


class _Holder(nn.Module):
    """What `replace_snakes` is given: an encoder block's chain of units and its strided layer."""

    def __init__(self) -> None:
        super().__init__()
        self.block = EncoderBlock(CHANNELS, 2 * CHANNELS, stride=4, use_snake=True).double()


@pytest.fixture
def blocks() -> tuple[nn.Module, nn.Module]:
    """(theirs, ours) with the same weights, folded."""
    torch.manual_seed(0)
    theirs, ours = _Holder(), _Holder()
    for name, parameter in theirs.named_parameters():
        if "alpha" in name or "beta" in name:
            nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    replace_snakes(ours)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for module in [*theirs.modules(), *ours.modules()]:
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return theirs.eval().block, ours.eval().block


def _clips(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, CHANNELS, length, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("length", [40, 64, 128, 132, 1000])
@pytest.mark.parametrize("values", [8 * 16, 8 * 64])
def test_units_in_stretches_of_any_length_are_theirs(
    blocks: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch, length: int, values: int
) -> None:
    monkeypatch.setattr(snake, "CACHED_VALUES", values)
    theirs, ours = blocks
    with torch.inference_mode():
        torch.testing.assert_close(
            ours(_clips(length)), theirs(_clips(length)), rtol=1e-9, atol=1e-9
        )


def test_units_with_gradients_or_weight_norm_are_theirs(
    blocks: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snake, "CACHED_VALUES", 256)
    theirs, ours = blocks
    torch.testing.assert_close(ours(_clips(300)), theirs(_clips(300)), rtol=1e-9, atol=1e-9)
    unfolded, plain = _Holder().eval(), _Holder().eval()
    plain.load_state_dict(unfolded.state_dict())
    replace_snakes(unfolded)
    with torch.inference_mode():
        expected = plain.block(_clips(300))
        torch.testing.assert_close(unfolded.block(_clips(300)), expected, rtol=1e-9, atol=1e-9)


def test_units_under_autocast_are_as_near_to_single_precision_as_theirs(
    blocks: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snake, "CACHED_VALUES", 256)
    theirs, ours = (block.float() for block in blocks)
    clips = _clips(300).float()
    with torch.inference_mode():
        exact = theirs(clips)
        torch.testing.assert_close(ours(clips), exact, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(block(clips).float() - exact).norm() for block in (ours, theirs)]
    assert 0 < errors[0] < 1.1 * errors[1]


def test_replace_snakes_leaves_units_without_them(blocks: tuple[nn.Module, nn.Module]) -> None:
    block = nn.ModuleList([EncoderBlock(CHANNELS, CHANNELS, stride=2, use_snake=False)])
    replace_snakes(block)
    assert any(isinstance(module, TheirUnit) for module in block.modules())

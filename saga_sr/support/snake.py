"""The autoencoder's Snakes and residual units on a CPU, in half the time.

stable-audio-tools computes its activation, Snake, x + sin^2(a x) / b, in six passes over memory.
The same function is x + h - h cos(2 a x) with h = 1 / (2 b): three passes.

Nine tenths of the encoder and of the decoder are chains of three residual units,

    x + conv1(snake(conv7(snake(x))))        conv7: 7 taps, dilated; conv1: 1 tap

on activations of 32 MiB for 1.5 s of audio: every pass waits for the memory. Here a stretch of the
input goes through the whole chain while it lies in the cache, with the channels innermost, as
oneDNN's convolutions want it. With each unit it loses its ends, which the stretch beside it has:

    input    ...|===|==============|===|...    at both ends the reach of the three conv7
    output          |==============|           the next stretch begins where this one ends

Parameters and their names stay as they are. On other devices, and where gradients are wanted, every
unit computes what it was.
"""

import itertools
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

CACHED_VALUES = 1 << 18  # per stretch: 1 MiB of float32
NO_DIVISION_BY_ZERO = 1e-9  # as in stable-audio-tools
Factors = tuple[Tensor, Tensor]


class Snake(nn.Module):
    """Takes the place of stable-audio-tools' ``SnakeBeta``: same parameters, names and values.

    Args:
        alpha, beta: [channels], logarithms of a and b.
    """

    def __init__(self, alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        self.alpha = nn.Parameter(alpha.detach())
        self.beta = nn.Parameter(beta.detach())

    def factors(self) -> Factors:
        """2 a and h, each [channels]."""
        return 2 * self.alpha.exp(), 0.5 / (self.beta.exp() + NO_DIVISION_BY_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, T] -> the same shape."""
        twice_a, h = (factor[:, None] for factor in self.factors())
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return x + h - h * torch.cos(twice_a * x)
        result = torch.empty_like(x)
        step = max(1, CACHED_VALUES // x.shape[1])
        for item, out in zip(x, result, strict=True):
            for begin in range(0, x.shape[2], step):
                piece = item[:, begin : begin + step].to(twice_a.dtype)
                out[:, begin : begin + step] = _snake(piece, (twice_a, h))
        return result


def _snake(x: Tensor, factors: Factors) -> Tensor:
    twice_a, h = factors
    return (x * twice_a).cos_().mul_(-h).add_(h).add_(x)


class ResidualUnit(nn.Module):
    """Takes the place of stable-audio-tools' ``ResidualUnit``, which also asks for activation
    checkpointing; same parameters and names.

    Args:
        layers: Snake, convolution of 7 taps, Snake, convolution of 1 tap.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, T] -> the same shape."""
        return x + self.layers(x)


class Block(nn.Sequential):
    """Takes the place of the ``nn.Sequential`` of an encoder's or decoder's block."""

    def forward(self, x: Tensor) -> Tensor:
        for is_unit, group in itertools.groupby(
            self, lambda layer: isinstance(layer, ResidualUnit)
        ):
            layers = list(group)
            if is_unit and _fits_stretches(layers, x):
                x = _in_stretches(layers, x)
                continue
            for layer in layers:
                x = layer(x)
        return x


def _fits_stretches(units: list[nn.Module], x: Tensor) -> bool:
    normed = any(hasattr(module, "weight_g") for unit in units for module in unit.modules())
    plain = torch.is_grad_enabled() or x.device.type != "cpu" or normed
    return not plain and x.shape[1] * x.shape[2] > CACHED_VALUES


@dataclass(frozen=True)
class _StretchedUnit:
    """A residual unit on stretches [n, C], which it shortens to [n - 2 reach, C]. Convolutions are
    computed in the type of their weights, all else in that of the stretch."""

    first: Factors
    wide: tuple[Tensor, Tensor]  # weight, channels innermost, and bias
    second: Factors
    narrow: tuple[Tensor, Tensor]
    dilation: int
    reach: int

    def __call__(self, stretch: Tensor) -> Tensor:
        low, high = self.wide[1].dtype, stretch.dtype
        hidden = _as_image(_snake(stretch, self.first).to(low))
        hidden = functional.conv2d(hidden, *self.wide, dilation=(1, self.dilation))
        hidden = _as_image(_snake(_as_sequence(hidden).to(high), self.second).to(low))
        # The dilation of one tap means nothing, but without it torch takes another library, which
        # needs twice the time.
        hidden = _as_sequence(functional.conv2d(hidden, *self.narrow, dilation=2))
        return hidden.to(high).add_(stretch[self.reach : len(stretch) - self.reach])


def _stretched(unit: nn.Module, dtype: torch.dtype) -> _StretchedUnit:
    first, wide, second, narrow = cast(Any, unit.layers)
    filters = [
        (_channels_last(conv.weight.to(dtype)), conv.bias.to(dtype)) for conv in (wide, narrow)
    ]
    return _StretchedUnit(
        first.factors(), filters[0], second.factors(), filters[1], wide.dilation[0], wide.padding[0]
    )


def _in_stretches(units: list[nn.Module], x: Tensor) -> Tensor:
    """[B, C, T] through consecutive residual units."""
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    stretched = [_stretched(unit, dtype) for unit in units]
    reach, length = sum(unit.reach for unit in stretched), x.shape[2]
    step = CACHED_VALUES // x.shape[1]
    result = torch.empty_like(x, dtype=dtype)
    for item, out in zip(x, result, strict=True):
        for begin in range(0, length, step):
            end = min(begin + step, length)
            out[:, begin:end] = _one_stretch(stretched, item, begin - reach, end + reach).T
    return result


def _one_stretch(units: list[_StretchedUnit], item: Tensor, begin: int, end: int) -> Tensor:
    """Columns ``begin`` to ``end`` of an item [C, T] through the units: [n - 2 reaches, C]; what
    lies outside the item is zero before each of the units, as their own padding is."""
    length = item.shape[1]
    inside = item[:, max(0, begin) : min(end, length)].T
    exact = torch.promote_types(item.dtype, torch.float32)
    stretch = item.new_empty(end - begin, item.shape[0], dtype=exact)
    stretch[max(0, -begin) : min(end, length) - begin] = inside
    for unit in units:
        stretch[: max(0, -begin)] = 0
        stretch[len(stretch) - max(0, end - length) :] = 0
        stretch = unit(stretch)
        begin, end = begin + unit.reach, end - unit.reach
    return stretch


def _channels_last(weight: Tensor) -> Tensor:
    """[O, I, taps] -> [O, I, 1, taps] with the channels innermost."""
    return weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _as_image(sequence: Tensor) -> Tensor:
    """[T, C] -> [1, C, 1, T], a view: one line of pixels with the channels innermost."""
    return sequence.T[None, :, None]


def _as_sequence(image: Tensor) -> Tensor:
    return image[0, :, 0].T


def replace_snakes(network: nn.Module) -> None:
    """Swap every ``SnakeBeta`` inside ``network`` for a `Snake`, and what is built around them."""
    from stable_audio_tools.models import autoencoders
    from stable_audio_tools.models.blocks import SnakeBeta

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, SnakeBeta):
                setattr(module, name, Snake(child.alpha, child.beta))
    for module in list(network.modules()):
        if not isinstance(module, autoencoders.EncoderBlock | autoencoders.DecoderBlock):
            continue
        module.layers = Block(*(_unit(child) for child in module.layers))


def _unit(layer: nn.Module) -> nn.Module:
    """A residual unit of stable-audio-tools with Snakes as a `ResidualUnit`; other layers as they
    are."""
    inside: Any = getattr(layer, "layers", None)
    return ResidualUnit(inside) if inside is not None and isinstance(inside[0], Snake) else layer

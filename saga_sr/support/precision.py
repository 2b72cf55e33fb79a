"""What autocast must not touch.

Lower precision is for the networks' matrix products. A bfloat16 has 8 significant bits: a DCT in it
puts noise some 55 dB below the loudest coefficient of a frame on all others, which is where the
high band of speech and music lies; times and positions are rounded until they are no longer told
apart.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


def full_precision(like: Tensor) -> AbstractContextManager:
    """No autocast on the device of ``like``; the meta device has none."""
    if like.is_meta:
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def in_full_precision(
    method: Callable[Concatenate[S, Tensor, P], R],
) -> Callable[Concatenate[S, Tensor, P], R]:
    """A method that computes in the precision of what it is given, whatever autocast says.

    Its first argument, which may come out of autocast in half precision, is made float32.
    """

    @wraps(method)
    def without_autocast(self: S, first: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        with full_precision(first):
            first = first.float() if first.dtype in (torch.bfloat16, torch.float16) else first
            return method(self, first, *args, **kwargs)

    return without_autocast

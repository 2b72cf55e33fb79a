"""Randomness is passed, never ambient: every generator is a function of a key.

A key is a sequence of integers and strings, for example ``("noise", seed, draw)``. The same key
gives the same stream in every process, on every rank and after every resume; different keys give
streams that have nothing to do with each other.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key_to_seed(*key: int | str) -> int:
    """63-bit seed of a key; ``(1, "2")`` and ``("1", 2)`` are different keys."""
    digest = hashlib.sha256(repr(key).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A fresh numpy generator for ``key``."""
    return np.random.default_rng(key_to_seed(*key))


def torch_generator(*key: int | str) -> "torch.Generator":
    """A fresh torch CPU generator for ``key``: the same numbers whatever the device is later."""
    import torch

    return torch.Generator(device="cpu").manual_seed(key_to_seed(*key))

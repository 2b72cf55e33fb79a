"""Millions of file names in two arrays, which workers share without copying."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


# --- one folder -----------------------------------------------------------------------------------
class PackedNames:
    """Many byte strings in two arrays: cheap to store, to send, to keep."""

    def __init__(self, blob: np.ndarray, ends: np.ndarray) -> None:
        self.blob = blob  # uint8, all strings one after the other
        self.ends = ends  # int64 [N]

    @classmethod
    def pack(cls, names: Sequence[bytes]) -> "PackedNames":
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        return cls(np.frombuffer(b"".join(names), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, position: int) -> bytes:
        begin = self.ends[position - 1] if position else 0
        return self.blob[begin : self.ends[position]].tobytes()

    def unpack(self) -> list[bytes]:
        data, borders = self.blob.tobytes(), [0, *self.ends.tolist()]
        return [data[begin:end] for begin, end in pairwise(borders)]

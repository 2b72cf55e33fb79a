"""What a check runs on: a CUDA card, or in a rehearsal the CPU.

All that only CUDA can do is in `Machine`, and `Rehearsal` says what stands in its place; every
other line of the checks is the same on both.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.cards import card_named

GIB = 2**30


@dataclass(frozen=True)
class Facts:
    """Attributes:
    name: as the driver says it.
    memory_bytes: of one card.
    count: of cards.
    details: what else there is to say.
    """

    name: str
    memory_bytes: int
    count: int
    details: str


class Machine:
    """The first CUDA card.

    Args:
        facts: what `look` found, in another process: one that has touched CUDA cannot fork.
    """

    device = torch.device("cuda", 0)
    accelerator = "gpu"
    backend = "nccl"
    cannot: tuple[str, ...] = ()

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @staticmethod
    def look() -> Facts:
        one = torch.cuda.get_device_properties(0)
        capability = f"compute capability {one.major}.{one.minor}, CUDA {torch.version.cuda}"
        return Facts(one.name, one.total_memory, torch.cuda.device_count(), capability)

    def wait(self) -> None:
        torch.cuda.synchronize()

    def forget_peak(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> tuple[int, int]:
        """Most that tensors had since `forget_peak`; and of the card what is taken now, context,
        fragments and other programs included."""
        free, total = torch.cuda.mem_get_info()
        return torch.cuda.max_memory_allocated(), total - free

    def captured(self, compute: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """``compute`` as a CUDA graph: what runs it again, and the tensor that it then fills."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = compute()
        return graph.replay, result

    # --- the same on every machine ----------------------------------------------------------------

    def peak_tflops(self) -> tuple[float, str]:
        """Dense bfloat16 peak and where it is from: the maker, or a product measured here."""
        card = card_named(self.facts.name)
        if card is not None:
            return card.bf16_tflops, f"the maker's, [{card.source}] in benchmarks/gpu/cards.py"
        return self.product_tflops(), "no entry in benchmarks/gpu/cards.py: a large product"

    def product_tflops(self, size: int = 8192, repeats: int = 10) -> float:
        """What a product of two bfloat16 matrices [size, size] reaches."""
        size = size if self.device.type == "cuda" else size // 32
        matrix = torch.randn(size, size, device=self.device).bfloat16()
        (seconds,) = self.seconds([lambda: matrix @ matrix], repeats)
        return 2 * size**3 / seconds / 1e12

    def seconds(self, ways: Sequence[Callable[[], object]], repeats: int) -> list[float]:
        """Median seconds of each way on the clock, in turns, after one round to warm up."""
        taken: list[list[float]] = [[] for _ in ways]
        for repeat in range(repeats + 1):
            for way, kept in zip(ways, taken, strict=True):
                self.wait()
                began = time.perf_counter()
                way()
                self.wait()
                if repeat:
                    kept.append(time.perf_counter() - began)
        return [statistics.median(one) for one in taken]

    def graphed(self, function: Callable[..., Tensor], *like: Tensor) -> Callable[..., Tensor]:
        """``function`` of tensors shaped as ``like``, launched as one graph. A new answer replaces
        the one before. Autocast's copies of the weights stay those of the capture: call it within
        the block that it was captured in."""
        inputs = [tensor.clone() for tensor in like]
        replay, result = self.captured(lambda: function(*inputs))

        def launch(*values: Tensor) -> Tensor:
            for kept, value in zip(inputs, values, strict=True):
                kept.copy_(value)
            replay()
            return result

        return launch

    def bf16(self, enabled: bool = True) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


class Rehearsal(Machine):
    """The CPU, in its place."""

    device = torch.device("cpu")
    accelerator = "cpu"
    backend = "gloo"
    cannot = (
        "the names and properties of cards",
        "CUDA graphs: the function is called again in their place",
        "memory of a card, its peak and its context: 0 in their place",
        "kernels of CUDA, and so every figure, every speed and every difference of precision",
        "NCCL: gloo in its place",
        "the code that inductor writes: its backend for CUDA is replaced by aot_eager",
    )

    @staticmethod
    def look() -> Facts:
        return Facts("rehearsal on a CPU", 0, 2, "nothing here was measured on a GPU")

    def wait(self) -> None:
        pass

    def forget_peak(self) -> None:
        pass

    def peak_bytes(self) -> tuple[int, int]:
        return 0, 0

    def captured(self, compute: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        result = compute()
        return lambda: result.copy_(compute()), result

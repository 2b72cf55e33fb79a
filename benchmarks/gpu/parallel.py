"""DDP and FSDP against one process, by the runs of `benchmarks/reliability/ddp_check.py`."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ddp_check import Checks, differences, make_inputs


def compare_processes(accelerator: str, processes: int) -> Iterator[tuple[str, float]]:
    """Run the same global batch in one process and in ``processes``.

    Yields:
        The strategy, and the largest difference of any logged number (relative) or weight.

    Raises:
        RuntimeError: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["SAGA_SR_CACHE"] = str(root / "cache")
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # its rounding depends on the size of a batch
        if os.fork() == 0:  # it computes, and this process must not have before it forks
            make_inputs(root, ["F0"])
            os._exit(0)
        os.wait()
        checks, more = Checks(root), {"accelerator": accelerator, "precision": "32-true"}
        try:
            one = checks.run("one", 1, **more)
            for strategy in ("ddp", "fsdp"):
                many = checks.run(strategy, processes, strategy=strategy, **more)
                yield strategy.upper(), max(differences(strategy, one, many))
        except SystemExit as stopped:
            raise RuntimeError(str(stopped)) from None

"""Which of several processes this is, by what torchrun, SLURM or Lightning set; data workers."""

import os
import signal


def process_rank() -> int:
    """0 for the first or only process, above 0 for the others."""
    if (rank := _number("RANK")) is not None:
        return rank
    local = _number("LOCAL_RANK")
    on_node = local if local is not None else _number("SLURM_PROCID")
    return (on_node or 0) + (_number("NODE_RANK") or 0)


def process_count() -> int:
    """How many processes of this run have been started by now: 1 before Lightning starts others."""
    return _number("WORLD_SIZE") or _number("SLURM_STEP_NUM_TASKS") or 1


def start_worker(worker: int) -> None:
    """Begin a data worker: one thread, since more only get in the others' way; and the signals that
    reach every process of a job (SLURM's SIGTERM, Ctrl-C) are for the main one to answer: without
    its workers it could not finish the step."""
    import torch

    torch.set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None

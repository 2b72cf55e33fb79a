"""Which of several processes this is, by what torchrun, SLURM or Lightning set; without torch."""

import os


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


def _number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None

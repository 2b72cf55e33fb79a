"""What a failure of the machine means: one clear message in the place of a traceback.

A run of days meets full disks, hung disks, killed worker processes and full GPUs. Each of them has
its sentence here; what is not known stays an error with its traceback. Nothing is lost in any of
them: checkpoints appear whole or not at all, and ``--checkpoint last`` goes on.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saga_sr.support.errors import DISK_FULL, UserError, disk_full, first_line

GO_ON = "Then go on with --checkpoint last"
DATA_TIMEOUT_S = 600.0  # a worker that has answered nothing for so long sits on a hung disk
REAP_S = 5.0


@contextmanager
def machine_faults_named() -> Iterator[None]:
    """Turn what the machine can do to a run into a `UserError` that says what to do.

    Data workers that are left over are ended: one that hangs in a read answers no other signal and
    would keep this process from ending.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        if (sentence := explanation(error)) is None:
            raise
        raise UserError(sentence) from error
    finally:
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join(REAP_S)


def explanation(error: BaseException) -> str | None:
    """What a failure of the machine means and what to do; None where it is not known."""
    text = first_line(error)
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "the GPU's memory is full. A smaller --batch_size with more --accumulate_grad_batches, "
            "--activation_checkpointing, --optimizer adamw8bit and --ema_on_cpu need less "
            f"(docs/multi_gpu.md has the numbers). {GO_ON}\n{text}"
        )
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"{disk_full(error)}. {GO_ON}"
    if "DataLoader timed out" in text:
        return (
            f"no batch came from the data workers for {DATA_TIMEOUT_S:g} s: the disk of "
            f"--train_dir hangs, or is far too slow for --num_workers. {GO_ON}"
        )
    if "Bus error" in text:
        return (
            f"a data worker died ({text}). Either the shared memory (/dev/shm) is full: try fewer "
            "--num_workers; or a file of prepared latents was cut short while it was in use: run "
            f"the same saga_sr.pre_encode command again. {GO_ON}"
        )
    if "DataLoader worker" in text:
        return (
            f"a data worker died ({text}). The usual reason is that the machine's memory was full: "
            f"try fewer --num_workers. {GO_ON}"
        )
    if isinstance(error, torch.distributed.DistError) or _is_closed_by_peer(error):
        return f"another process of this run has ended; its own message says why ({text}). {GO_ON}"
    if "returned nan values" in text:
        return f"--detect_anomaly: in the backward pass, {text}"
    return None


def _is_closed_by_peer(error: BaseException) -> bool:
    """Gloo says so in a RuntimeError; an OSError with these words is of some other connection."""
    return isinstance(error, RuntimeError) and "by peer" in str(error)


def watch_for_non_finite(model: nn.Module) -> None:
    """With --detect_anomaly: stop at the first part of ``model`` whose output is not finite."""
    for name, part in model.named_modules():
        part.register_forward_hook(partial(_stop_if_not_finite, name))


def _stop_if_not_finite(name: str, part: nn.Module, inputs: Any, output: Any) -> None:
    tensors = output if isinstance(output, list | tuple) else [output]
    for tensor in tensors:
        if isinstance(tensor, Tensor) and not torch.isfinite(tensor).all():
            given = all(torch.isfinite(x).all() for x in inputs if isinstance(x, Tensor))
            raise UserError(
                f"--detect_anomaly: the first output that is not finite is that of {name} "
                f"({type(part).__name__}); its inputs are {'' if given else 'not '}finite, its "
                f"weights are {'' if _is_finite(part) else 'not '}finite"
            )


def _is_finite(part: nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in part.parameters())

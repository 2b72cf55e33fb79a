"""Do to a training run what clusters do, and see that it says so and loses nothing.

    python benchmarks/reliability/faults.py --repeats 3
    python benchmarks/reliability/faults.py --only full_disk --disk /mnt/small  # a small disk

A tiny model of the demo family trains with two data workers, on audio or on prepared latents. At a
random step one thing goes wrong: files vanish, are cut short or overwritten, a worker is killed,
the disk is full, weights turn NaN, SIGTERM comes, checkpoints are damaged. Counted is a fault that
ends as docs/reliability.md says: with the exit code and the words that belong to it, no traceback,
whole checkpoints; and then, once the fault is undone, ``--checkpoint last`` goes on to what the
undisturbed run ends with, bit for bit. Disks that are slow or stumble must not end the run at all.

The full disk is a tmpfs of 64 MB where this process may mount one, else the folder ``--disk``.
"""

# ruff: noqa: E402  (the paths come first)
import argparse
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import forks
import torch
from forks import pre_encode
from kill_test import compare, finished, forked, pre_encode_flags, tail
from tiny_runs import flags, make_corpus

import train_saga_sr
from saga_sr.audio import file as audio_file
from saga_sr.training import checkpoints

STEPS, SAVED_EVERY = 24, 3
FIRST_FAULT_STEP = 7  # two checkpoints are there
TIMEOUT_S = 400.0
DISK_BYTES = 64 << 20


@dataclass
class Run:
    """One run that is to be disturbed."""

    root: Path
    output: Path
    data: Path
    rng: random.Random

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.data.rglob(pattern))


@dataclass
class Fault:
    """What is done at the step (in the trainer's process), how the run must end and what it must
    say; what is undone afterwards, and what the second start must say."""

    strike: Callable[[Run], Any]
    code: int = 2
    says: tuple[str, ...] = ()
    data: str = "train"
    after: Callable[[Run], Any] = lambda run: None
    then_says: str = ""
    from_start: bool = False
    on_small_disk: bool = False


# --- what goes wrong ------------------------------------------------------------------------------


def vanish(pattern: str) -> Callable[[Run], None]:
    return lambda run: [path.unlink() for path in run.files(pattern)]  # type: ignore[return-value]


def cut(pattern: str) -> Callable[[Run], None]:
    """Shorten files in place, to a random part."""

    def strike(run: Run) -> None:
        for path in run.files(pattern):
            os.truncate(path, int(path.stat().st_size * run.rng.random() * 0.9))

    return strike


def overwrite(pattern: str) -> Callable[[Run], None]:
    """Random bytes in the place of files."""

    def strike(run: Run) -> None:
        for path in run.files(pattern):
            path.write_bytes(run.rng.randbytes(path.stat().st_size))

    return strike


def stumble(run: Run) -> None:
    """The data is away for a moment; every reader meets that."""
    away = run.data.with_suffix(".away")
    run.data.rename(away)
    threading.Timer(0.6, lambda: away.rename(run.data)).start()


def slow_down(run: Run) -> None:
    """Every file is opened 20 to 200 ms late, from the first one on."""
    original = audio_file._open

    def slow(path: Any) -> Any:
        time.sleep(random.uniform(0.02, 0.2))
        return original(path)

    audio_file._open = slow  # type: ignore[assignment]


def stall_workers(run: Run) -> None:
    """The workers stand still for two seconds, as on a disk that does not answer."""
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid or 0, signal.SIGSTOP)
    wake = lambda: [os.kill(worker.pid or 0, signal.SIGCONT) for worker in workers]  # noqa: E731
    threading.Timer(2.0, wake).start()


def kill_worker(run: Run) -> None:
    run.rng.choice(multiprocessing.active_children()).kill()


def send(number: signal.Signals) -> Callable[[Run], None]:
    return lambda run: os.kill(os.getpid(), number)


def fill_disk(run: Run) -> None:
    """Leave nothing of the disk of the output folder."""
    with open(run.output.parent / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def empty_disk(run: Run) -> None:
    (run.output.parent / "ballast").unlink()


def newest_checkpoint(run: Run) -> Path:
    return max((run.output / "checkpoints").glob("step=*.ckpt"))


def cut_newest(run: Run) -> None:
    path = newest_checkpoint(run)
    os.truncate(path, int(path.stat().st_size * run.rng.random()))


def flip_newest(run: Run) -> None:
    """Flip one bit of a weight in the newest checkpoint."""
    path = newest_checkpoint(run)
    data = bytearray(path.read_bytes())
    data[run.rng.randrange(len(data) // 4, len(data) // 2)] ^= 16
    path.write_bytes(data)


def poison(what: str) -> Callable[[Any], None]:
    """A NaN in the weights, or an infinite gradient of the next backward pass."""

    def strike(module: Any) -> None:
        weight = module.model.dit.transformer.layers[0].ff.ff[0].proj.weight
        if what == "weight":
            weight.data[0, 0] = float("nan")
        else:
            weight.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))

    return strike


NOT_READ = "it cannot be read (3 attempts"
TRUNCATED = "is truncated or corrupt; trying the one before"
FAULTS = {
    "files_vanish": Fault(vanish("*.wav"), says=(NOT_READ,)),
    "files_cut_short": Fault(cut("*.wav"), says=("error: ", "/train/")),
    "files_overwritten": Fault(overwrite("*.wav"), says=(NOT_READ,)),
    "disk_stumbles": Fault(stumble, code=0, says=("attempt 1 of 3",)),
    "disk_is_slow": Fault(slow_down, code=0, from_start=True),
    "workers_stall": Fault(stall_workers, code=0),
    "worker_killed": Fault(kill_worker, says=("a data worker died", "--num_workers")),
    "shards_vanish": Fault(vanish("*.safetensors"), says=(NOT_READ,), data="latents"),
    "shards_cut_short": Fault(cut("*.safetensors"), says=(NOT_READ,), data="latents"),
    "shards_overwritten": Fault(overwrite("*.safetensors"), says=(NOT_READ,), data="latents"),
    "full_disk": Fault(
        fill_disk, says=("ake room on the disk",), after=empty_disk, on_small_disk=True
    ),
    "nan_weight": Fault(poison("weight"), says=("the loss is nan at step",)),
    "infinite_gradient": Fault(
        poison("gradient"), says=("the gradient norm is", "Gradient norms before")
    ),
    "sigterm": Fault(send(signal.SIGTERM), code=143, says=("Stopped by SIGTERM",)),
    "sigint": Fault(send(signal.SIGINT), code=130, says=("Stopped by SIGINT",)),
    "newest_checkpoint_cut": Fault(
        send(signal.SIGTERM), code=143, after=cut_newest, then_says=TRUNCATED
    ),
    "newest_checkpoint_one_bit": Fault(
        send(signal.SIGTERM), code=143, after=flip_newest, then_says=TRUNCATED
    ),
}


# --- a trial --------------------------------------------------------------------------------------


class Struck(train_saga_sr.SAGASRTrainer):
    """The trainer, with a fault at one step of this process."""

    strike: Callable[[Any], Any] | None = None
    strike_step = 0

    def on_fit_start(self) -> None:
        if Struck.strike_step == 0 and Struck.strike is not None:  # before there are workers
            Struck.strike(self)
            Struck.strike = None

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        strike = Struck.strike
        if strike is not None and self.global_step >= Struck.strike_step:
            Struck.strike = None
            strike(self)
        return super().training_step(batch, batch_idx)


def argv(root: Path, output: Path, data: Path) -> list[str]:
    return flags(
        root, output, "--compute_rolloff", train_dir=data, num_workers=2, max_steps=STEPS,
        val_every_n_steps=8, checkpoint_every_n_steps=SAVED_EVERY, checkpoint="last",
        logger="tensorboard", val_num_train_clips=0,
    )  # fmt: skip


def end_of(pid: int) -> int:
    """The exit code of a child; a run that hangs is killed, and its code is -9."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if (code := finished(pid)) is not None:
            return code
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


def start(run: Run, log: Path, fault: Fault | None) -> tuple[int, str]:
    """Run to the end, disturbed or not; the exit code and what was said."""
    if fault is not None:
        on_module = fault.strike.__qualname__.startswith("poison")
        Struck.strike = fault.strike if on_module else lambda module: fault.strike(run)
        later = run.rng.randrange(FIRST_FAULT_STEP, STEPS - 8)
        Struck.strike_step = 0 if fault.from_start else later
    log.write_bytes(b"")
    code = end_of(forked(forks.train, argv(run.root, run.output, run.data), log))
    Struck.strike = None
    return code, log.read_text(encoding="utf-8", errors="replace")


def problems_of(fault: Fault, run: Run, alone: Path, log: Path) -> list[str]:
    """What was not as it should be; empty where the fault was survived."""
    backup = run.root / "backup"
    shutil.copytree(run.data, backup)
    code, said = start(run, log, fault)
    problems = [f"exit code {code}, not {fault.code}"] if code != fault.code else []
    problems += [f"not said: {words}" for words in fault.says if words not in said]
    problems += ["a traceback"] if "Traceback" in said else []
    saved = (run.output / "checkpoints").glob("*.ckpt")
    problems += [f"{path.name} is not whole" for path in saved if not checkpoints.is_whole(path)]
    if problems:
        problems.append(tail(log))
    shutil.rmtree(run.data, ignore_errors=True)
    backup.rename(run.data)
    fault.after(run)
    code, said = start(run, log, None)
    problems += [f"the second start ended with {code}: {tail(log)}"] if code else []
    problems += [f"not said: {fault.then_says}"] if fault.then_says not in said else []
    return problems or compare(alone, run.output)


@contextmanager
def small_disk(root: Path, given: Path | None) -> Iterator[Path | None]:
    """A folder on a disk that can be filled; None where there is none."""
    if given is not None:
        yield given
        return
    folder = root / "small_disk"
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = os.name == "posix" and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3, help="of each fault, at random steps")
    parser.add_argument("--only", choices=FAULTS, nargs="+", default=list(FAULTS))
    parser.add_argument("--disk", type=Path, help="a folder on a small disk, for full_disk")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    vars(train_saga_sr)["SAGASRTrainer"] = Struck
    torch.set_num_threads(1)
    survived = tried = 0
    with tempfile.TemporaryDirectory() as folder:
        root, log = Path(folder), Path(folder) / "log.txt"
        os.environ["SAGA_SR_CACHE"] = str(root / "cache")
        make_corpus(root, num_train=40)
        if code := end_of(forked(pre_encode, pre_encode_flags(root, root / "latents"), log)):
            raise SystemExit(f"pre_encode ended with {code}: {tail(log)}")
        alone = {data: root / f"alone-{data}" for data in ("train", "latents")}
        for data, output in alone.items():
            if start(Run(root, output, root / data, random.Random(0)), log, None)[0]:
                raise SystemExit(tail(log))
        for name in options.only:
            fault, bad = FAULTS[name], 0
            begin = time.monotonic()
            with small_disk(root, options.disk) as disk:
                if fault.on_small_disk and disk is None:
                    print(f"{name:28s} not tried: no small disk; give --disk", flush=True)
                    continue
                for number in range(options.repeats):
                    place = disk if fault.on_small_disk and disk else root
                    rng = random.Random(f"{options.seed} {name} {number}")
                    run = Run(root, place / f"{name}-{number}", root / fault.data, rng)
                    if problems := problems_of(fault, run, alone[fault.data], log):
                        bad += 1
                        print("\n".join([f"{name} {number}:", *problems]), flush=True)
                    shutil.rmtree(run.output, ignore_errors=True)
            survived, tried = survived + options.repeats - bad, tried + options.repeats
            print(f"{name:28s} {options.repeats - bad} of {options.repeats} survived, "
                  f"{time.monotonic() - begin:.0f} s", flush=True)  # fmt: skip
    print(f"{survived} of {tried} faults survived")
    return survived != tried


if __name__ == "__main__":
    raise SystemExit(main())

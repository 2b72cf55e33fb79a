"""Kill a training run with SIGKILL again and again, and compare it to the run that was left alone.

    python benchmarks/reliability/kill_test.py --kills 36 --fresh 4 --pre_encode_kills 12

A tiny model of the demo family trains on generated noise with ``--checkpoint last``, now with
worker processes and now without. Each restart is killed in a phase of its turn (index scan, set-up,
training step, checkpoint write, validation, anywhere), at a random moment of it. At the end the
last run is left to finish, and everything that it wrote is compared bit for bit: weights, averaged
weights, optimiser state, the export, which checkpoints are kept, and every number in metrics.csv
but the clips per second. The same is done to `saga_sr.pre_encode` and its latents.

Most restarts are forks of a process that has imported everything and run nothing, so that a
restart costs no import of torch; ``--fresh`` of them are new processes of the real script.
The phases are told by wrappers that write one byte of shared memory and change nothing else.
"""

# ruff: noqa: E402  (the paths come first)
import argparse
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import forks
import torch
from forks import Program, pre_encode, run_and_exit, write_to
from tiny_runs import flags, make_corpus

import train_saga_sr
from saga_sr.audio import index
from saga_sr.pre_encode import encode
from saga_sr.training import checkpoints, metrics_csv
from saga_sr.training import run as training_run

ELSEWHERE, SCAN, SETUP, STEP, CHECKPOINT, VALIDATION, EXPORT, ENCODING, SHARD = range(9)
PHASES = (
    "elsewhere", "index scan", "set-up", "step", "checkpoint write", "validation", "export",
    "encoding", "shard write",
)  # fmt: skip
TARGETS = (SCAN, SETUP, STEP, CHECKPOINT, VALIDATION, None)  # None: anywhere
PRE_ENCODE_TARGETS = (SCAN, ENCODING, SHARD, None)
POLL_S = 0.0002
TIMEOUT_S = 300.0
PHASE = mmap.mmap(-1, 1)  # shared with every fork: where it is now


# --- the run --------------------------------------------------------------------------------------


def run_flags(root: Path, output: Path, max_steps: int, num_workers: int) -> list[str]:
    return flags(
        root, output, "--compute_rolloff", max_steps=max_steps, num_workers=num_workers,
        accumulate_grad_batches=2, val_every_n_steps=6, checkpoint_every_n_steps=3,
        checkpoint="last",
    )  # fmt: skip


def pre_encode_flags(root: Path, output: Path) -> list[str]:
    return [
        "--audio_dir", str(root / "train"), "--output_dir", str(output), "--model_config",
        str(root / "config.json"), "--variants", "2", "--shard_segments", "16", "--num_workers",
        "0", "--accelerator", "cpu",
    ]  # fmt: skip


def mark(owner: Any, name: str, phase: int) -> None:
    """Have ``owner.name`` say in `PHASE` that it runs."""
    original = getattr(owner, name)

    def marked(*args: Any, **kwargs: Any) -> Any:
        before, PHASE[0] = PHASE[0], phase
        try:
            return original(*args, **kwargs)
        finally:
            PHASE[0] = before

    setattr(owner, name, marked)


def mark_phases() -> None:
    mark(index, "scan_folder", SCAN)
    mark(encode, "encode_clips", ENCODING)
    mark(encode, "write_shard", SHARD)
    for name in ("open_training_data", "load_weights", "build_trainer"):
        mark(training_run, name, SETUP)
    mark(training_run, "export", EXPORT)
    mark(checkpoints.AtomicCheckpointIO, "save_checkpoint", CHECKPOINT)


class Marked(train_saga_sr.SAGASRTrainer):
    """The trainer, saying whether it steps or validates."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        PHASE[0] = STEP
        super().optimizer_step(*args, **kwargs)
        PHASE[0] = ELSEWHERE

    def on_validation_epoch_start(self) -> None:
        PHASE[0] = VALIDATION
        super().on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        PHASE[0] = ELSEWHERE


def forked(program: Program, argv: list[str], log: Path) -> int:
    """Start a program in a fork; returns its pid."""
    PHASE[0] = ELSEWHERE
    pid = os.fork()
    if pid:
        return pid
    write_to(log)
    run_and_exit(program, argv)


def finished(pid: int) -> int | None:
    """The exit code of a child, None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


# --- the killer -----------------------------------------------------------------------------------


def kill_in_phase(pid: int, target: int | None, log: Path, rng: random.Random) -> int:
    """SIGKILL ``pid`` inside the phase ``target`` (None: anywhere); the phase it was really in."""
    skipped = rng.randrange(3) if target not in (SCAN, SETUP, None) else 0
    deadline = time.monotonic() + (rng.uniform(0.3, 8.0) if target is None else TIMEOUT_S)
    inside = False
    while time.monotonic() < deadline:
        if (code := finished(pid)) is not None:
            too_short(code, log)
        before, inside = inside, PHASE[0] == target
        if inside and not before:
            skipped -= 1
            if skipped < 0:
                time.sleep(rng.choice((0, rng.uniform(0, 0.5) ** 3)))  # at once, early, or late
                break
        time.sleep(POLL_S)
    os.kill(pid, signal.SIGKILL)
    phase = PHASE[0]
    os.waitpid(pid, 0)
    return phase


def kill_fresh(argv: list[str], log: Path, rng: random.Random) -> None:
    """Start the script as a new process and kill it some time after its first step was logged, or
    before."""
    with open(log, "ab") as file:
        command = [sys.executable, str(ROOT / "train_saga_sr.py"), *argv]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    folder = Path(argv[argv.index("--output_dir") + 1])
    records = folder / "environment.json"
    started = records.stat().st_mtime_ns if records.exists() else 0
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if records.exists() and records.stat().st_mtime_ns != started:
            break
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 5))
    process.kill()
    if (code := process.wait()) != -signal.SIGKILL:
        too_short(code, log)


# --- the comparison -------------------------------------------------------------------------------


def differing(first: Any, second: Any, path: str = "") -> list[str]:
    """Paths of everything that is not the same, bit for bit."""
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [
            line for key in first for line in differing(first[key], second[key], f"{path}.{key}")
        ]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [line for n, (a, b) in pairs for line in differing(a, b, f"{path}[{n}]")]
    return [] if first == second else [path]


def metric_rows(folder: Path) -> list[tuple[int, str, float]]:
    rows = metrics_csv.read_metrics(folder / "metrics.csv")
    return sorted(row for row in rows if row[1] != "train/clips_per_s")


def compare(alone: Path, killed: Path) -> list[str]:
    """What differs between the two runs; empty where nothing was lost and nothing changed."""
    problems = []
    names = [sorted(p.name for p in (run / "checkpoints").iterdir()) for run in (alone, killed)]
    if names[0] != names[1]:
        problems.append(f"checkpoint files: {names[0]} and {names[1]}")
    newest = max(name for name in names[0] if name.startswith("step="))
    states = [checkpoints.read_checkpoint(run / "checkpoints" / newest) for run in (alone, killed)]
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        problems += differing(states[0][part], states[1][part], part)
    problems += differing(states[0]["saga_sr"]["ema"], states[1]["saga_sr"]["ema"], "ema")
    weights = [(run / "export/model.safetensors").read_bytes() for run in (alone, killed)]
    if weights[0] != weights[1]:
        problems.append("export/model.safetensors")
    rows = [metric_rows(run) for run in (alone, killed)]
    if rows[0] != rows[1]:
        missing, extra = set(rows[0]) - set(rows[1]), set(rows[1]) - set(rows[0])
        problems.append(
            f"metrics.csv: {len(rows[0])} and {len(rows[1])} rows; missing {sorted(missing)[:4]}, "
            f"not in the undisturbed run {sorted(extra)[:4]}"
        )
    return problems


def compare_latents(alone: Path, killed: Path) -> list[str]:
    """Files of a set of latents that differ, or are there in one set only."""
    names = [
        {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
        for run in (alone, killed)
    ]
    half_written = {name for name in names[1] - names[0] if name.name.startswith(".")}
    print(f"  {len(half_written)} half-written files were left behind, which nothing reads")
    problems = [f"{name}: in one set only" for name in names[0] ^ (names[1] - half_written)]
    both = names[0] & names[1]
    return problems + [
        str(name) for name in both if (alone / name).read_bytes() != (killed / name).read_bytes()
    ]


# --- main -----------------------------------------------------------------------------------------


def run_to_the_end(program: Program, argv: list[str], log: Path) -> None:
    _, status = os.waitpid(forked(program, argv, log), 0)
    if (code := os.waitstatus_to_exitcode(status)) != 0:
        raise SystemExit(f"a run that nobody killed ended with exit code {code}: {tail(log)}")


def too_short(code: int, log: Path) -> NoReturn:
    """A run ended before it was to be killed."""
    advice = "" if code else "; give it more to do, with --max_steps or --files"
    raise SystemExit(f"a run ended by itself with exit code {code}{advice}: {tail(log)}")


def tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]


def kill_forks(
    program: Any, make_argv: Callable[[int], list[str]], kills: int, targets: Sequence[int | None],
    cache: Path, log: Path, rng: random.Random,
) -> Counter[str]:  # fmt: skip
    """Restart and kill so many times; the number of kills per phase."""
    counts = Counter[str]()
    for turn in range(kills):
        target = targets[turn % len(targets)]
        if target == SCAN:  # without a cache there is a scan
            shutil.rmtree(cache, ignore_errors=True)
        phase = kill_in_phase(forked(program, make_argv(turn), log), target, log, rng)
        counts[PHASES[phase]] += 1
        print(f"  kill {turn + 1}: {PHASES[phase]}", flush=True)
    return counts


def check_training(root: Path, options: argparse.Namespace, log: Path) -> tuple[Counter[str], Any]:
    """Kills per phase of the training run, and what differs at its end."""
    rng, steps = random.Random(options.seed), options.max_steps
    alone, killed = root / "alone", root / "killed"
    run_to_the_end(forks.train, run_flags(root, alone, steps, 0), log)

    def argv(turn: int) -> list[str]:
        return run_flags(root, killed, steps, 2 * (turn % 2))

    counts = kill_forks(forks.train, argv, options.kills, TARGETS, root / "cache", log, rng)
    for turn in range(options.fresh):
        kill_fresh(argv(turn), log, rng)
        counts["a new process"] += 1
        print("  kill of a new process", flush=True)
    run_to_the_end(forks.train, run_flags(root, killed, steps, 2), log)
    return counts, compare(alone, killed)


def check_pre_encode(
    root: Path, options: argparse.Namespace, log: Path
) -> tuple[Counter[str], Any]:
    """The same for saga_sr.pre_encode."""
    rng = random.Random(options.seed)
    alone, killed = root / "latents", root / "killed_latents"
    run_to_the_end(pre_encode, pre_encode_flags(root, alone), log)
    argv = pre_encode_flags(root, killed)
    counts = kill_forks(
        pre_encode, lambda turn: argv, options.pre_encode_kills, PRE_ENCODE_TARGETS,
        root / "cache", log, rng,
    )  # fmt: skip
    run_to_the_end(pre_encode, argv, log)
    return counts, compare_latents(alone, killed)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=36, help="of forks of a training run")
    parser.add_argument("--fresh", type=int, default=4, help="of new processes of the script")
    parser.add_argument("--pre_encode_kills", type=int, default=12)
    parser.add_argument("--max_steps", type=int, default=320)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    mark_phases()
    vars(train_saga_sr)["SAGASRTrainer"] = Marked
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root, log = Path(folder), Path(folder) / "log.txt"
        os.environ["SAGA_SR_CACHE"] = str(root / "cache")
        make_corpus(root, num_train=options.files)
        for name, check in (("training", check_training), ("pre_encode", check_pre_encode)):
            begin = time.monotonic()
            counts, problems = check(root, options, log)
            kills = ", ".join(f"{number} in {phase}" for phase, number in counts.most_common())
            print(f"{name}: {counts.total()} kills ({kills}), {time.monotonic() - begin:.0f} s")
            print("\n".join(["differences:", *problems] if problems else ["no bit differs"]))
            failed |= bool(problems)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())

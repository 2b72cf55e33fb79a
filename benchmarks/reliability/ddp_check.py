"""Several processes against one: the same samples, the same losses, the same weights.

    python benchmarks/reliability/ddp_check.py                   # DDP, FSDP, all stages
    python benchmarks/reliability/ddp_check.py --only launchers  # torchrun, 2 x 2, as SLURM starts

All runs take the same global batch of the same tiny model on the CPU (gloo). Compared with one
process are every logged number (loss, gradient norm, validation), the trained weights and the
averages, and which files were written. Most processes are forks of one that has imported
everything and run nothing. What another process than the first prints is an error.
"""

# ruff: noqa: E402  (the paths come first)
import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# Two processes of two threads on two cores wait for each other's threads: 15 times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from forks import run_and_exit, train, write_to
from lightning.pytorch.utilities import rank_zero_only
from tiny_models import text_and_rolloff, tiny_demo
from tiny_runs import flags, make_corpus

from saga_sr.training import checkpoints, metrics_csv

GLOBAL_BATCH = 8
STEPS = 6
TOLERANCE = 1e-4  # relative; float32 sums in another order


def make_inputs(root: Path, stages: Sequence[str] = ("F0", "F1", "F2")) -> None:
    """A corpus, and configs whose rate does not depend on --max_steps, so that a shorter run is
    the start of a longer one."""
    make_corpus(root, num_train=7, num_val=3)
    for stage in stages:
        raw = tiny_demo(training__lr_schedule={})
        if stage != "F0":
            from tiny_text_models import build_tiny_t5

            t5 = build_tiny_t5(root / "t5", dim=24)
            raw = text_and_rolloff(raw)
            raw["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = str(t5)
            raw["model"]["diffusion"]["compute_rolloff"] = stage == "F2"
        (root / f"{stage}.json").write_text(json.dumps(raw), encoding="utf-8")


def run_flags(
    root: Path, name: str, devices: int, num_nodes: int = 1, stage: str = "F0", **changes: Any
) -> list[str]:
    """The flags of a run with `GLOBAL_BATCH` clips a step, whatever the number of processes."""
    processes = devices * num_nodes
    values: dict[str, Any] = {
        "model_config": root / f"{stage}.json", "batch_size": GLOBAL_BATCH // processes,
        "max_steps": STEPS, "val_every_n_steps": 3, "val_num_clips": 3, "devices": devices,
        "checkpoint_every_n_steps": 3, "num_nodes": num_nodes,
        "strategy": "ddp" if processes > 1 else "auto",
    } | changes  # fmt: skip
    return flags(root, root / name, **values)


# --- starting processes ---------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_forks(argv: list[str], processes: int, log: Path) -> list[int]:
    """Start the script's main in so many forks, as a cluster would; their process ids."""
    port = free_port()
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            _be_rank(argv, rank, processes, port, log)
        pids.append(pid)
    return pids


def exit_codes(pids: Sequence[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _be_rank(argv: list[str], rank: int, processes: int, port: int, log: Path) -> None:
    write_to(log.with_suffix(f".{rank}.txt"))
    if processes > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes),
            "LOCAL_RANK": str(rank), "RANK": str(rank), "NODE_RANK": "0", "GROUP_RANK": "0",
            "LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": "forked",
        }  # fmt: skip
        rank_zero_only.rank = rank
    run_and_exit(train, argv)


def run_commands(
    commands: Sequence[Sequence[str]], log: Path, env: Sequence[Mapping[str, str]]
) -> None:
    """Start several commands at once and wait for all; any failure ends the program."""
    with open(log, "ab") as file:
        running = [
            subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | extra, cwd=ROOT)
            for command, extra in zip(commands, env, strict=True)
        ]
        codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"exit codes {codes}: {log.read_text(errors='replace')[-3000:]}")


# --- comparing ------------------------------------------------------------------------------------


def metrics_of(folder: Path) -> dict[tuple[int, str], float]:
    rows = metrics_csv.read_metrics(folder / "metrics.csv")
    if len({row[:2] for row in rows}) != len(rows):
        raise SystemExit(f"{folder}/metrics.csv: a number was written twice")
    return {row[:2]: row[2] for row in rows if row[1] != "train/clips_per_s"}


def newest_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Trained weights and averages."""
    checkpoint = checkpoints.read_checkpoint(max((folder / "checkpoints").glob("step=*.ckpt")))
    return checkpoint["state_dict"] | checkpoint["saga_sr"]["ema"]


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def differences(what: str, one: Path, many: Path) -> tuple[float, float]:
    """The largest differences between two runs: relative of logged numbers, absolute of weights and
    averages; files that only one of them wrote (another process than the first has written) end the
    program."""
    if names := _files(one) ^ _files(many):
        raise SystemExit(f"{what}: not in both runs: {sorted(names)}")
    first, second = metrics_of(one), metrics_of(many)
    if first.keys() != second.keys():
        raise SystemExit(f"{what}: other numbers were logged: {first.keys() ^ second.keys()}")
    relative = max(abs(first[key] - second[key]) / max(abs(first[key]), 1e-2) for key in first)
    a, b = newest_weights(one), newest_weights(many)
    return relative, max(float((a[name] - b[name]).abs().max()) for name in a)


def check_same(what: str, one: Path, many: Path) -> None:
    """Print `differences` between two runs; too large ones end the program."""
    relative, absolute = differences(what, one, many)
    print(f"{what:48s} logged numbers differ by {relative:.1e} at most, weights by {absolute:.1e}")
    sys.stdout.flush()
    if not (relative < TOLERANCE and absolute < TOLERANCE):
        raise SystemExit(f"{what}: more than {TOLERANCE:g}")


# --- the checks -----------------------------------------------------------------------------------


class Checks:
    """Runs below ``root``, all compared with one process."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "log.txt"

    def run(self, name: str, devices: int, *more: str, **changes: Any) -> Path:
        """A run in forks; returns its folder."""
        argv = [*run_flags(self.root, name, devices, **changes), *more]
        codes = exit_codes(start_forks(argv, devices, self.log))
        if any(codes):
            raise SystemExit(f"{name}: exit codes {codes}\n{self.said()[-4000:]}")
        for rank in range(1, devices):
            said = self.log.with_suffix(f".{rank}.txt").read_text(encoding="utf-8")
            if said.strip():
                raise SystemExit(f"{name}: process {rank} said: {said[-2000:]}")
        return self.root / name

    def said(self) -> str:
        """What all processes have printed."""
        return "\n".join(path.read_text() for path in sorted(self.root.glob("log.*.txt")))

    def started(self, name: str) -> list[int]:
        """Two processes that have logged their first steps, with many to go; their ids."""
        pids = start_forks(run_flags(self.root, name, 2, max_steps=10_000), 2, self.log)
        while not metrics_csv.read_metrics(self.root / name / "metrics.csv"):
            time.sleep(0.1)
        return pids

    def stops(self) -> None:
        pids = self.started("stopped")
        os.kill(pids[1], signal.SIGTERM)  # to one of them only
        codes = exit_codes(pids)
        found = checkpoints.find_checkpoint("last", self.root / "stopped")
        print(f"SIGTERM to one of 2 processes: exit codes {codes}, saved {found and found.name}")
        pids = self.started("failed")
        for file in (self.root / "train").glob("*.wav"):
            file.write_bytes(b"damaged")
        codes += exit_codes(pids)
        text = self.said()
        print(f"damaged files: exit codes {codes[2:]}, {text.count('Traceback')} tracebacks")
        if codes != [143, 143, 2, 2] or found is None or "Traceback" in text:
            raise SystemExit(text[-4000:])

    def quick(self) -> None:
        one = self.run("one", 1)
        check_same("DDP, 2 processes", one, self.run("two", 2))
        self.run("resumed", 2, max_steps=3)
        resumed = self.run("resumed", 1, "--checkpoint", "last")
        check_same("DDP, 3 steps of 2 processes, then 3 of 1", one, resumed)

    def sizes(self) -> None:
        one = self.run("one", 1)
        check_same("DDP, 4 processes for 3 clips", one, self.run("four", 4))
        self.run("grown", 1, max_steps=3)
        check_same("DDP, 1 process, then 4", one, self.run("grown", 4, "--checkpoint", "last"))
        halves = self.run("halves", 2, accumulate_grad_batches=2, batch_size=GLOBAL_BATCH // 4)
        check_same("DDP, 2 processes, 2 micro-batches each", one, halves)

    def stages(self) -> None:
        for stage in ("F1", "F2"):
            one = self.run(f"{stage}-one", 1, stage=stage)
            check_same(f"DDP, 2 processes, {stage}", one, self.run(f"{stage}-two", 2, stage=stage))

    def fsdp(self) -> None:
        one = self.run("one", 1)
        check_same("FSDP, 2 processes", one, self.run("sharded", 2, strategy="fsdp"))
        self.run("cut", 1, max_steps=3)
        cut = self.run("cut", 2, "--checkpoint", "last", strategy="fsdp")
        check_same("1 process, then FSDP on 2", one, cut)
        self.run("joined", 2, max_steps=3, strategy="fsdp")
        check_same("FSDP on 2, then 1 process", one, self.run("joined", 1, "--checkpoint", "last"))

    def students(self) -> None:
        """`--distill_from`: a teacher in every process, which FSDP does not shard."""
        teacher = self.run("teacher", 1) / "export"
        teach = {"distill_from": teacher, "model_config": teacher / "config.json"}
        one = self.run("pupil", 1, **teach)
        check_same("DDP, 2 processes, a student", one, self.run("pupils", 2, **teach))
        sharded = self.run("sharded", 2, strategy="fsdp", **teach)
        check_same("FSDP, 2 processes, a student", one, sharded)

    def launchers(self) -> None:
        """The real commands: processes, ports, torchrun and the variables of srun."""
        script, torchrun = (
            str(ROOT / "train_saga_sr.py"),
            [sys.executable, "-m", "torch.distributed.run"],
        )
        one = self.run("one", 1)
        plain = [sys.executable, script, *run_flags(self.root, "lightning", 2)]
        run_commands([plain], self.log, [{}])
        check_same("Lightning's launcher, 2 processes", one, self.root / "lightning")
        port = str(free_port())
        nodes = [
            [*torchrun, "--nnodes", "2", "--node_rank", str(node), "--nproc_per_node", "2",
             "--master_addr", "127.0.0.1", "--master_port", port, script,
             *run_flags(self.root, "nodes", 2, 2)]
            for node in range(2)
        ]  # fmt: skip
        run_commands(nodes, self.log, [{}, {}])
        check_same("torchrun, 2 nodes x 2 processes on loopback", one, self.root / "nodes")
        srun = [sys.executable, script, *run_flags(self.root, "slurm", 2)]
        run_commands([srun, srun], self.log, [slurm_variables(rank, 2) for rank in range(2)])
        check_same("2 processes with srun's variables", one, self.root / "slurm")


def slurm_variables(rank: int, processes: int) -> dict[str, str]:
    """What srun sets for each task of one node."""
    return {
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "saga", "SLURM_NTASKS": str(processes),
        "SLURM_NTASKS_PER_NODE": str(processes), "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_NODELIST": "127.0.0.1", "SLURM_STEP_NODELIST": "127.0.0.1",
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip


def main() -> int:
    names = ("quick", "stops", "sizes", "stages", "fsdp", "students", "launchers")
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=names, nargs="+", default=names[:-1])
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SAGA_SR_CACHE"] = str(Path(folder) / "cache")
            if os.fork() == 0:  # it computes, and this process must not have before it forks
                make_inputs(Path(folder))
                os._exit(0)
            os.wait()
            getattr(Checks(Path(folder)), name)()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

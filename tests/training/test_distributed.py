"""Several processes on the CPU: real DDP runs of the script, compared with one process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import ROOT

from saga_sr.training.validation import MeanOverClips


@pytest.mark.parametrize("check", ["quick", "students"])
def test_two_processes_are_one(check: str) -> None:
    """Losses, validation, weights and averages; see the program for what it compares."""
    program = [sys.executable, str(ROOT / "benchmarks/reliability/ddp_check.py"), "--only", check]
    done = subprocess.run(program, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    differences = [float(one) for one in re.findall(r"differ by (\S+)", done.stdout)]
    assert len(differences) == 2
    assert max(differences) < 1e-4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num_nodes 2", "no launcher started this process"),
        ("--strategy fsdp --ema_on_cpu", "--ema_on_cpu does not go with --strategy fsdp"),
    ],
)
def test_flags_that_would_hang_or_mislead_are_refused(
    flags: str, message: str, tmp_path: Path
) -> None:
    program = [sys.executable, str(ROOT / "train_saga_sr.py"), *flags.split()]
    program += ["--train_dir", str(tmp_path), "--model_config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_mean_counts_a_clip_once_that_came_twice() -> None:
    means = MeanOverClips()
    means.add([0, 1], {"lsd": torch.tensor([1.0, 2.0])})
    means.add([0], {"lsd": torch.tensor([1.0])})
    assert means.means() == {"lsd": 1.5}


@pytest.mark.parametrize(("clips", "processes"), [(16, 1), (5, 2), (3, 8), (16, 5)])
def test_validation_gives_every_process_as_many_clips_and_leaves_none_out(
    clips: int, processes: int
) -> None:
    """Processes that have different numbers of batches wait for each other for ever."""
    import argparse
    from types import SimpleNamespace

    from saga_sr.training.assemble import val_loader

    options = argparse.Namespace(batch_size=2)
    shares = []
    for rank in range(processes):
        trainer = SimpleNamespace(global_rank=rank, world_size=processes)
        loader = val_loader(range(clips), options, trainer)
        shares.append(list(loader.dataset.indices))
    assert len({len(share) for share in shares}) == 1
    assert {clip for share in shares for clip in share} == set(range(clips))
    assert sum(map(len, shares)) < clips + processes

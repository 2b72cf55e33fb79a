"""What scripts/ship_model.py puts into the folder that is shipped."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import ROOT, built, tiny_demo

from saga_sr.model import SAGASRModel


def _run(folder: Path, seed: int, **changes: int) -> Path:
    built(tiny_demo(**changes), seed).save_pretrained(folder / "export")
    return folder


def _ship(*words: object) -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts" / "ship_model.py"
    return subprocess.run(
        [sys.executable, script, *map(str, words)], capture_output=True, text=True, timeout=300
    )


def test_of_several_runs_the_mean_is_shipped_with_the_sampling_that_was_chosen(
    tmp_path: Path,
) -> None:
    runs = [_run(tmp_path / str(seed), seed) for seed in (1, 2, 3)]
    output = tmp_path / "shipped"
    shipping = _ship(*runs, "--output", output, "--num_steps", 3, "--solver", "heun")
    assert shipping.returncode == 0, shipping.stderr

    shipped = SAGASRModel.from_pretrained(output)
    assert (shipped.config.sampling.num_steps, shipped.config.sampling.solver) == (3, "heun")
    weights = [dict(SAGASRModel.from_pretrained(run / "export").trainable()) for run in runs]
    for name, parameter in shipped.trainable():
        mean = sum(each[name].detach() for each in weights) / len(weights)
        assert torch.equal(parameter.detach().half(), parameter.detach())
        assert parameter.detach() == pytest.approx(mean, rel=1e-3, abs=1e-6)


def test_runs_of_two_architectures_have_no_mean(tmp_path: Path) -> None:
    runs = [_run(tmp_path / "a", 1), _run(tmp_path / "b", 1, model__diffusion__config__depth=1)]
    shipping = _ship(*runs, "--output", tmp_path / "shipped")
    assert shipping.returncode == 2
    assert "architecture" in shipping.stderr
    assert "Traceback" not in shipping.stderr
    assert not (tmp_path / "shipped").exists()

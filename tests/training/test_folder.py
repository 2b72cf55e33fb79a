"""One run per output folder: nothing of a person is replaced or mixed unasked."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ROOT, tiny_demo
from tiny_runs import flags, run_training

from saga_sr.config import parse_model_config
from saga_sr.support.errors import UserError
from saga_sr.support.files import exclusive_lock
from saga_sr.training.flags import parse_options
from saga_sr.training.folder import claimed, output_folder
from saga_sr.training.metrics_csv import read_metrics

QUICK: dict[str, Any] = {"val_num_clips": 0, "val_num_train_clips": 0, "max_steps": 2}


@pytest.fixture(scope="module")
def train() -> Any:
    """The script as a module."""
    return importlib.import_module("train_saga_sr")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_SR_CACHE", str(tmp_path / "cache"))


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "ids", "rolloff", "extra", "expected"),
    [
        ("saga_model_config.json", [], False, [], "runs/saga_sr-f0"),
        ("saga_model_config.json", ["prompt"], False, [], "runs/saga_sr-f1"),
        ("saga_model_config.json", ["prompt"], True, [], "runs/saga_sr-f2"),
        ("saga_model_config_demo.json", [], True, [], "runs/saga_sr_demo-f0-rolloff"),
        ("mine.json", [], False, ["--overfit_clips", "8"], "runs/mine-f0-overfit8"),
        ("mine.json", [], False, ["--output_dir", "elsewhere"], "elsewhere"),
        ("m.json", [], False, ["--checkpoint", "a/checkpoints/best.ckpt"], "a"),
    ],
)
def test_default_folder_is_named_after_config_and_stage(
    config: str, ids: list[str], rolloff: bool, extra: list[str], expected: str, tmp_path: Path
) -> None:
    """The plan's commands name none: F0, F1 and F2 must not meet."""
    raw = tiny_demo(
        model__diffusion__cross_attention_cond_ids=ids, model__diffusion__compute_rolloff=rolloff
    )
    (tmp_path / config).write_text(json.dumps(raw), encoding="utf-8")
    argv = ["--train_dir", str(tmp_path), "--model_config", str(tmp_path / config), *extra]
    assert output_folder(parse_options(argv), parse_model_config(raw)) == Path(expected)


# --- a used folder --------------------------------------------------------------------------------


def test_used_folder_is_left_alone_until_told_otherwise(train: Any, corpus: Path) -> None:
    """A fresh start, another run's checkpoint, a step back and a trial."""
    run, other = corpus / "run", corpus / "other"
    run_training(train, flags(corpus, run, **QUICK))
    run_training(train, flags(corpus, other, **QUICK))
    notes = run / "notes.txt"
    notes.write_text("mine", encoding="utf-8")
    before = _contents(run)
    first = run / "checkpoints/step=00000001.ckpt"
    refused: list[tuple[list[str], str]] = [
        ([], "holds a run already .* at step 2.*--checkpoint last.*--overwrite"),
        (["--checkpoint", str(other / "checkpoints/step=00000002.ckpt")], "holds another run"),
        (["--checkpoint", str(first)], "has gone on beyond step=00000001.ckpt, at step 2"),
        (["--checkpoint", str(first), "--export_only"], "its export is of a newer step"),
        (["--overwrite", "--init_from", str(run / "export")], "would delete --init_from"),
    ]
    for extra, message in refused:
        with pytest.raises(UserError, match=message):
            run_training(train, flags(corpus, run, *extra, **QUICK))
        assert _contents(run) == before, extra
    assert run_training(train, flags(corpus, run, "--fast_dev_run", **QUICK)) == 0
    assert _contents(run) == before

    assert run_training(train, flags(corpus, run, "--overwrite", **QUICK | {"max_steps": 1})) == 0
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step=00000001.ckpt"]
    assert {step for step, _, _ in read_metrics(run / "metrics.csv")} == {0}
    assert notes.read_text(encoding="utf-8") == "mine"


def test_a_step_back_with_overwrite_keeps_what_came_before(train: Any, corpus: Path) -> None:
    run = corpus / "run"
    run_training(train, flags(corpus, run, **QUICK | {"max_steps": 3}))
    losses = read_metrics(run / "metrics.csv")
    back = str(run / "checkpoints/step=00000001.ckpt")
    run_training(train, flags(corpus, run, "--overwrite", checkpoint=back, **QUICK))
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["step=00000001.ckpt", "step=00000002.ckpt"]
    kept = [row for row in losses if row[1] == "train/loss" and row[0] < 2]
    assert [row for row in read_metrics(run / "metrics.csv") if row[1] == "train/loss"] == kept


def test_last_in_a_folder_whose_checkpoints_are_gone_keeps_the_export(
    train: Any, corpus: Path
) -> None:
    run = corpus / "run"
    run_training(train, flags(corpus, run, **QUICK))
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="holds an export and no checkpoint"):
        run_training(train, flags(corpus, run, checkpoint="last", **QUICK))


# --- two at once ----------------------------------------------------------------------------------


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[Path]:
    """A run folder in which another process trains."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from saga_sr.support.files import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1]), 'held'):\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run/.lock")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield tmp_path / "run"
    process.communicate(timeout=60)


def test_two_runs_in_one_folder_are_kept_apart(
    other_process: Path, train: Any, corpus: Path
) -> None:
    for extra in ([], ["--checkpoint", "last"], ["--overwrite"]):
        with pytest.raises(UserError, match="another process trains there"):
            run_training(train, flags(corpus, other_process, *extra, **QUICK))
    assert not _contents(other_process)


def test_lock_goes_with_its_process_though_a_worker_lives_on(tmp_path: Path) -> None:
    """A data worker of a killed run is a fork: it must not hold the folder."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from saga_sr.support.files import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1]), 'held'):\n"
        "    worker = os.fork()\n"
        "    if worker == 0:\n"
        "        time.sleep(60)\n"
        "    print(worker, flush=True)\n"
        "    time.sleep(0.5)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    lock = tmp_path / ".lock"
    done = subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout is not None
    worker = int(done.stdout.readline())
    done.wait(60)
    try:
        with exclusive_lock(lock, "held"):
            pass
    finally:
        os.kill(worker, 9)


def test_run_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    options = argparse.Namespace(fast_dev_run=False, export_only=False)
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(UserError, match="no audio"), claimed(options, tmp_path / name):
            raise UserError("no audio")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not list((tmp_path / "there").iterdir())
    with claimed(options, tmp_path / "new") as folder:
        (folder / "config.json").write_text("{}", encoding="utf-8")
    assert (tmp_path / "new/config.json").is_file()


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    options = argparse.Namespace(fast_dev_run=False, export_only=False)
    with (
        pytest.raises(UserError, match="cannot be written"),
        claimed(options, tmp_path / "file" / "run"),
    ):
        pass


def test_last_with_overwrite_keeps_what_it_goes_on_from(train: Any, corpus: Path) -> None:
    """Only the checkpoints came along to another machine."""
    run, moved = corpus / "run", corpus / "moved"
    run_training(train, flags(corpus, run, **QUICK | {"max_steps": 1}))
    moved.mkdir()
    (run / "checkpoints").rename(moved / "checkpoints")
    again = flags(corpus, moved, "--overwrite", checkpoint="last", **QUICK)
    assert run_training(train, again) == 0
    assert sorted(p.name for p in (moved / "checkpoints").iterdir())[0] == "step=00000001.ckpt"

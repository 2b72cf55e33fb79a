"""What clusters do to a run: signals, full and hung disks, dead workers, files that change."""

import ast
import importlib
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ROOT
from tiny_runs import flags, run_training

from saga_sr.support.errors import UserError, run_cli
from saga_sr.support.files import atomic_path
from saga_sr.training import faults
from saga_sr.training import run as training_run
from saga_sr.training.checkpoints import find_checkpoint, is_whole, read_checkpoint
from saga_sr.training.metrics_csv import read_metrics


@pytest.fixture(scope="module")
def train() -> Any:
    """The script as a module."""
    return importlib.import_module("train_saga_sr")


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SAGA_SR_CACHE", str(tmp_path / "cache"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _numbers(folder: Path) -> list[tuple[int, str, float]]:
    rows = read_metrics(folder / "metrics.csv")
    return sorted(row for row in rows if row[1] != "train/clips_per_s")


def _checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def _assert_same_run(first: Path, second: Path) -> None:
    assert _numbers(first) == _numbers(second)
    assert _checkpoints(first) == _checkpoints(second)
    newest = [max((run / "checkpoints").glob("step=*")) for run in (first, second)]
    a, b = (read_checkpoint(path) for path in newest)
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
        ema = name.removeprefix("model.")
        assert torch.equal(a["saga_sr"]["ema"][ema], b["saga_sr"]["ema"][ema]), name


def _before_call(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, action: Callable[[], Any]
) -> None:
    """Have the ``number``-th call of ``owner.name`` begin with ``action``."""
    original, calls = getattr(owner, name), iter(range(1, 10**6))

    def called(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


# --- stops ----------------------------------------------------------------------------------------


class _Killed(BaseException):
    """What no program catches."""


def _killed() -> None:
    raise _Killed


@pytest.mark.parametrize("place", ["validation_step", "training_step", "on_save_checkpoint"])
def test_run_that_was_killed_anywhere_loses_no_number_and_no_file(
    place: str, train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, killed = corpus / "alone", corpus / "killed"
    run_training(train, flags(corpus, alone))
    assert not list(alone.glob("csv"))  # no checkpoints but ours
    calls = {"validation_step": 5, "training_step": 4, "on_save_checkpoint": 3}
    with monkeypatch.context() as patched:
        _before_call(patched, train.SAGASRTrainer, place, calls[place], _killed)
        with pytest.raises(_Killed):
            run_training(train, flags(corpus, killed))
    (killed / "checkpoints" / ".step=00000009.77.tmp.ckpt").write_bytes(b"half")
    run_training(train, flags(corpus, killed, checkpoint="last"))
    _assert_same_run(alone, killed)


@pytest.mark.parametrize(
    ("number", "place", "calls"),
    [
        (signal.SIGTERM, "validation_step", 1),  # before the first step
        (signal.SIGTERM, "validation_step", 4),
        (signal.SIGINT, "training_step", 3),
    ],
)
def test_signal_saves_what_is_trained_and_the_run_goes_on_from_there(
    number: signal.Signals, place: str, calls: int, train: Any, corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In the middle of a validation too, when the parameters are the averaged ones."""
    alone, stopped = corpus / "alone", corpus / "stopped"
    rarely: dict[str, Any] = {"checkpoint_every_n_steps": 100, "keep_checkpoints": 1}
    run_training(train, flags(corpus, alone, **rarely))
    with monkeypatch.context() as patched:
        action = lambda: os.kill(os.getpid(), number)  # noqa: E731
        _before_call(patched, train.SAGASRTrainer, place, calls, action)
        assert run_training(train, flags(corpus, stopped, **rarely)) == 128 + number
    assert find_checkpoint("last", stopped) is not None
    run_training(train, flags(corpus, stopped, checkpoint="last", **rarely))
    _assert_same_run(alone, stopped)


def test_the_newest_checkpoints_and_the_best_are_kept(train: Any, corpus: Path) -> None:
    run_training(train, flags(corpus, corpus / "run", keep_checkpoints=2, max_steps=3))
    assert _checkpoints(corpus / "run") == ["best.ckpt", "step=00000002.ckpt", "step=00000003.ckpt"]
    run_training(
        train, flags(corpus, corpus / "run", keep_checkpoints=2, max_steps=4, checkpoint="last")
    )
    assert _checkpoints(corpus / "run") == ["best.ckpt", "step=00000003.ckpt", "step=00000004.ckpt"]


# --- disks ----------------------------------------------------------------------------------------


def test_full_disk_stops_with_the_last_good_checkpoint(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk takes no file of more than 100 kB from the third checkpoint on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # noqa: E731
    _before_call(monkeypatch, train.SAGASRTrainer, "on_save_checkpoint", 3, limit)
    try:
        code = run_cli(lambda: run_training(train, flags(corpus, corpus / "run", val_num_clips=0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    message = capsys.readouterr().err
    assert "step=00000003.ckpt" in message
    assert "cannot be written" in message
    assert _checkpoints(corpus / "run") == ["step=00000001.ckpt", "step=00000002.ckpt"]
    assert all(is_whole(path) for path in (corpus / "run/checkpoints").iterdir())


def test_full_disk_is_named_where_the_writer_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """libsndfile and torch say "System error" or "file write failed"."""
    path = tmp_path / "sound.wav"

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("System error.")

    with pytest.raises(RuntimeError, match="System error"):
        write()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
    assert run_cli(write) == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert "make room on the disk" in message
    assert not list(tmp_path.iterdir())


def _vanish(file: Path) -> None:
    file.unlink()


def _shrink(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def _corrupt(file: Path) -> None:
    file.write_bytes(os.urandom(40_000))


@pytest.mark.parametrize("damage", [_vanish, _shrink, _corrupt])
def test_file_that_turns_bad_while_training_is_retried_then_named(
    damage: Callable[[Path], None], train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """In a worker process: one message, no traceback, no other clip in its place."""
    monkeypatch.setattr("saga_sr.audio.file.RETRY_DELAY_S", 0.01)
    files = sorted((corpus / "train").glob("*.wav"))
    _before_call(
        monkeypatch, training_run, "train_loader", 1, lambda: [damage(file) for file in files]
    )
    argv = flags(corpus, corpus / "run", num_workers=1, val_num_clips=0, val_num_train_clips=0)
    assert run_cli(lambda: run_training(train, argv)) == 2
    message = capfd.readouterr().err.split("error: ")[-1]
    assert "Traceback" not in message
    assert message.count(str(corpus / "train")) == 1


def test_dead_worker_is_named_with_advice(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = lambda: multiprocessing.active_children()[0].kill()  # noqa: E731
    _before_call(monkeypatch, train.SAGASRTrainer, "training_step", 2, kill)
    argv = flags(corpus, corpus / "run", num_workers=1, val_num_clips=0, val_num_train_clips=0,
                 max_steps=2000)  # fmt: skip
    with pytest.raises(UserError, match=r"data worker died.*--num_workers"):
        run_training(train, argv)


def test_hung_disk_ends_in_a_message_and_leaves_no_process(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a pipe that nobody writes to takes for ever, as on a file server that is gone."""

    def hang() -> None:
        for file in (corpus / "train").glob("*.wav"):
            file.unlink()
            os.mkfifo(file)

    monkeypatch.setattr(faults, "DATA_TIMEOUT_S", 2)
    _before_call(monkeypatch, training_run, "train_loader", 1, hang)
    argv = flags(corpus, corpus / "run", num_workers=1, val_num_clips=0, val_num_train_clips=0)
    with pytest.raises(UserError, match=r"--train_dir hangs"):
        run_training(train, argv)
    assert not multiprocessing.active_children()


def test_disk_that_stumbles_is_read_again_and_the_stumble_is_logged(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("saga_sr.audio.file.RETRY_DELAY_S", 0.2)
    away = [(file, file.with_suffix(".away")) for file in (corpus / "train").glob("*.wav")]

    def stumble() -> None:
        for file, elsewhere in away:
            file.rename(elsewhere)
        threading.Timer(0.1, lambda: [b.rename(a) for a, b in away]).start()

    _before_call(monkeypatch, train.SAGASRTrainer, "on_train_start", 1, stumble)
    with caplog.at_level(logging.WARNING):
        assert run_training(train, flags(corpus, corpus / "run", max_steps=2)) == 0
    assert any("attempt 1 of 3" in record.getMessage() for record in caplog.records)


# --- numbers --------------------------------------------------------------------------------------


def test_detect_anomaly_names_the_layer(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = flags(corpus, corpus / "run", "--detect_anomaly", val_num_clips=0, val_num_train_clips=0)
    original = train.SAGASRTrainer.on_train_start

    def poisoned(module: Any) -> None:
        original(module)
        module.model.dit.transformer.layers[1].ff.ff[0].proj.weight.data[0, 0] = float("nan")

    monkeypatch.setattr(train.SAGASRTrainer, "on_train_start", poisoned)
    with pytest.raises(
        UserError, match=r"dit\.transformer\.layers\.1\.ff\.ff\.0\.proj .*not finite"
    ):
        run_training(train, argv)


def test_non_finite_gradient_leaves_the_checkpoint_before_and_the_norms(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = flags(corpus, corpus / "run", val_num_clips=0, val_num_train_clips=0)
    original, calls = torch.nn.utils.clip_grad_norm_, iter(range(1, 100))

    def blown_up(parameters: list[torch.nn.Parameter], *args: Any) -> torch.Tensor:
        if next(calls) == 3:
            parameters[0].grad.fill_(float("inf"))  # type: ignore[union-attr]
        return original(parameters, *args)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", blown_up)
    with pytest.raises(UserError, match="the gradient norm is inf at step 2") as error:
        run_training(train, argv)
    assert len(str(error.value).split("norms before: ")[1].split(",")) == 2
    newest = find_checkpoint("last", corpus / "run")
    assert newest is not None
    assert newest.name == "step=00000002.ckpt"
    state = read_checkpoint(newest)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_loss_of_a_step_is_the_mean_over_its_micro_batches(train: Any, corpus: Path) -> None:
    """A spike in any of them shows in the log."""
    quiet: dict[str, Any] = {"val_num_clips": 0, "val_num_train_clips": 0, "max_steps": 2}
    run_training(train, flags(corpus, corpus / "whole", batch_size=4, **quiet))
    parts = flags(corpus, corpus / "parts", batch_size=1, accumulate_grad_batches=4, **quiet)
    run_training(train, parts)
    whole, parts_ = (_numbers(corpus / name) for name in ("whole", "parts"))
    assert [row[:2] for row in whole] == [row[:2] for row in parts_]
    for (_, name, a), (_, _, b) in zip(whole, parts_, strict=True):
        assert a == pytest.approx(b, rel=1e-4), name


# --- memory ---------------------------------------------------------------------------------------


def test_average_on_the_cpu_is_the_same_average(train: Any, corpus: Path) -> None:
    run_training(train, flags(corpus, corpus / "one"))
    run_training(train, flags(corpus, corpus / "two", "--ema_on_cpu"))
    for name in ("one", "two"):
        assert _numbers(corpus / name)
    assert _numbers(corpus / "one") == _numbers(corpus / "two")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)


def test_8_bit_optimizer_trains_and_resumes_exactly(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    few: dict[str, Any] = {"optimizer": "adamw8bit", "val_num_clips": 0, "val_num_train_clips": 0}
    run_training(train, flags(corpus, corpus / "alone", **few))
    with monkeypatch.context() as patched:
        _before_call(patched, train.SAGASRTrainer, "training_step", 3, _killed)
        with pytest.raises(_Killed):
            run_training(train, flags(corpus, corpus / "killed", **few))
    run_training(train, flags(corpus, corpus / "killed", checkpoint="last", **few))
    _assert_same_run(corpus / "alone", corpus / "killed")
    state = read_checkpoint(corpus / "alone/checkpoints/step=00000004.ckpt")["optimizer_states"][0]
    assert any(value.dtype == torch.uint8 for value in _tensors(state))


# --- what is read ---------------------------------------------------------------------------------

_REQUIRED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
_FORBIDDEN = {
    "pickle.load",
    "pickle.loads",
    "eval",
    "exec",
    "yaml.load",
    "joblib.load",
    "os.system",
}


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_code_of_the_project_runs_a_pickle_or_code_from_a_file() -> None:
    files = [
        ROOT / "train_saga_sr.py",
        *(ROOT / "saga_sr").rglob("*.py"),
        *(ROOT / "scripts").rglob("*.py"),
    ]
    seen = set()
    for path in files:
        for name, call in _calls(path):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert name not in _FORBIDDEN, f"{path}:{call.lineno}: {name}"
            assert given.get("trust_remote_code", "False") == "False", f"{path}:{call.lineno}"
            assert given.get("shell", "False") == "False", f"{path}:{call.lineno}"
            if name in _REQUIRED:
                key, value = _REQUIRED[name]
                assert given.get(key) == str(value), (
                    f"{path}:{call.lineno}: {name} needs {key}={value}"
                )
                seen.add(name)
    assert seen == set(_REQUIRED)

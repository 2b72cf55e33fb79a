"""A tiny corpus and the flags of runs that take milliseconds a step."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from tiny_models import ROOT, text_and_rolloff, tiny_demo

sys.path.append(str(ROOT))


def make_corpus(root: Path, num_train: int = 4, num_val: int = 2) -> None:
    """``root/train`` and ``root/val``: noise of half a second, mono and stereo, with transcripts;
    and ``root/config.json``, the tiny demo model."""
    rng = np.random.default_rng(0)
    for number in range(num_train + num_val):
        folder = root / ("train" if number < num_train else "val")
        folder.mkdir(parents=True, exist_ok=True)
        audio = 0.1 * rng.standard_normal((20_000, 1 + number % 2))
        sf.write(folder / f"{number:04d}.wav", audio, 44100)
        (folder / f"{number:04d}.txt").write_text(f"第 {number} noise", encoding="utf-8")
    (root / "config.json").write_text(json.dumps(tiny_demo()), encoding="utf-8")


def write_text_config(root: Path, t5: Path, compute_rolloff: bool) -> Path:
    """``root/text.json``: F1, or F2 with roll-off, with the T5 in the folder ``t5``."""
    raw = text_and_rolloff(tiny_demo())
    raw["model"]["diffusion"]["compute_rolloff"] = compute_rolloff
    raw["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = str(t5)
    path = root / f"text-{compute_rolloff}.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def flags(root: Path, output: Path, *switches: str, **changes: Any) -> list[str]:
    """The flags of a run on `make_corpus`; ``changes`` are flags with another value."""
    values = {
        "train_dir": root / "train", "val_dir": root / "val", "model_config": root / "config.json",
        "output_dir": output, "batch_size": 2, "max_steps": 4, "num_workers": 0,
        "val_every_n_steps": 2, "val_num_clips": 2, "val_num_train_clips": 1, "val_num_steps": 2,
        "val_num_pictures": 1, "checkpoint_every_n_steps": 1, "logger": "csv",
        "accelerator": "cpu", "precision": "32-true",
    } | changes  # fmt: skip
    return [
        *switches,
        *(word for name, value in values.items() for word in (f"--{name}", str(value))),
    ]


def run_training(script: Any, argv: list[str]) -> int:
    """Train as ``argv`` says, by the module ``train_saga_sr``; returns the exit code."""
    from saga_sr.training.flags import parse_options  # found by the path above

    return script.main(parse_options(argv))

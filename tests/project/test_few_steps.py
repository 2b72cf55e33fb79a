"""The table of a student beside its teacher: who is in it, and what follows from its numbers."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_models import built, tiny_demo, tiny_vae

from saga_sr.config import parse_model_config, student_config
from saga_sr.model import SAGASRModel
from saga_sr.weights import load_teacher

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "benchmarks/quality/few_steps.py"
    spec = importlib.util.spec_from_file_location("few_steps", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["few_steps"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("raw", [tiny_vae(sampling__guidance_acoustic=1.4), tiny_demo()])
def test_teacher_and_student_are_measured_on_the_same_segments(
    script: ModuleType, raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "audio").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal((20_000, 1))
    soundfile.write(tmp_path / "audio/noise.wav", noise, 44100)
    built(raw).save_pretrained(tmp_path / "teacher")
    student = SAGASRModel(student_config(parse_model_config(raw), [1, 2]))
    load_teacher(student, tmp_path / "teacher")
    student.save_pretrained(tmp_path / "student")
    words = ["--model", tmp_path / "teacher", "--student", tmp_path / "student", "--audio_dir",
             tmp_path / "audio", "--clips", "34", "--evaluations", "1", "2", "--solvers", "euler",
             "heun", "--output", tmp_path / "out"]  # fmt: skip
    monkeypatch.setattr(script, "END_STEPS", 2)
    monkeypatch.setattr("sys.argv", ["few_steps.py", *map(str, words)])
    branches = 2 if raw["sampling"]["guidance_acoustic"] != 1 else 1
    script.main()
    lines = (tmp_path / "out/table.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert [row[:3] for row in cells[2:]] == [
        ["unprocessed", "", "0"],
        ["start", "", "0"],
        ["teacher", "euler", str(branches)],
        ["teacher", "euler", str(2 * branches)],
        ["teacher", "heun", str(2 * branches)],
        ["student", "own steps", "1"],
        ["student", "own steps", "2"],
    ]
    off = {tuple(row[1:3]): float(row[-1]) for row in cells[3:]}
    assert off["", "0"] == 0.0  # the start is as far from the end as itself
    assert off["heun", str(2 * branches)] < off["euler", str(branches)]
    assert (tmp_path / "out/plot.png").stat().st_size > 10_000


def test_the_verdict_is_that_of_the_numbers(script: ModuleType) -> None:
    def rows(of_student: float, of_heun: float) -> list[Any]:
        found = [("t", "euler", 4, 3.0), ("t", "heun", 4, of_heun), ("t", "euler", 100, 2.0)]
        found.append(("s", "own steps", 4, of_student))
        return [script.Row(*row[:3], {"FD": row[3]}) for row in found]

    assert script.shortcomings(rows(2.09, 2.5), "t", {"s": (1, 4)}) == []
    assert script.shortcomings(rows(2.2, 2.5), "t", {"s": (4,)}) == ["s: at 4 it is 10.0 % behind"]
    assert script.shortcomings(rows(2.05, 2.04), "t", {"s": (4,)}) == [
        "s: at 4 heun is ahead of it"
    ]
    assert script.shortcomings(rows(9.0, 1.0), "t", {"s": (2,)}) == []

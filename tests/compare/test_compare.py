"""Training runs side by side: what was logged is what is shown, and unlike rules are named."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from tiny_models import text_and_rolloff, tiny_demo

from saga_sr.compare import __main__ as compare_flags
from saga_sr.compare import runs as compared
from saga_sr.support.errors import UserError


def write_run(
    folder: Path, raw: dict[str, Any], curves: dict[str, list[float]], **options: Any
) -> Path:
    """A run folder as train_saga_sr.py leaves it; validation every tenth step."""
    folder.mkdir()
    given = {"val_dir": ["val"], "val_num_clips": 4, "val_cutoff_hz": 4000.0}
    given |= {"disable_val_lowfreq_replace": False} | options
    (folder / "options.json").write_text(json.dumps(given), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    with open(folder / "metrics.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "metric", "value"))
        for metric, values in curves.items():
            every = 1 if metric.startswith("train") else 10
            writer.writerows((i * every, metric, value) for i, value in enumerate(values))
    return folder


NUM_STEPS = tiny_demo()["sampling"]["num_steps"]
CURVES = {
    "train/loss": [float(value) for value in np.linspace(2, 1, 100)],
    "val/loss": [1.5, 1.2, 1.1],
    "val/lsd": [3.0, 1.25, 1.75],
    "val/lsd_common": [3.1, 1.5, 1.9],
    "val/lsd_input": [3.75, 3.75, 3.75],
    "val/si_sdr": [10.0, 12.0, 11.0],
}


def run_compare(*arguments: str | Path) -> None:
    compared.main(compare_flags.parse_args([str(argument) for argument in arguments]))


def test_compare_two_equal_rules_shows_best_and_newest_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / name, tiny_demo(), CURVES) for name in ("F0", "F1")]
    run_compare(*runs, "--output", tmp_path / "out")
    text = (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert "|  | F0 | F1 |" in text
    assert "| val/lsd: best (step), newest | 1.25 (11), 1.75 | 1.25 (11), 1.75 |" in text
    assert "| val/si_sdr: best (step), newest | 12 (11), 11 | 12 (11), 11 |" in text
    assert "| val/lsd | 3.75 | 3.75 |" in text
    assert "different rules" not in text
    assert capsys.readouterr().err == ""
    picture = matplotlib.image.imread(tmp_path / "out/curves.png")
    assert picture.std() > 0.01


def test_compare_train_loss_is_the_mean_of_the_last_twentieth(tmp_path: Path) -> None:
    run = compared.read_run("F0", write_run(tmp_path / "F0", tiny_demo(), CURVES))
    assert run.final_train_loss() == pytest.approx(np.mean(CURVES["train/loss"][-5:]))
    assert run.num_steps == 100


def test_compare_other_stage_says_that_only_common_metrics_compare(tmp_path: Path) -> None:
    raws = (tiny_demo(), text_and_rolloff(tiny_demo()))
    runs = [
        compared.read_run(name, write_run(tmp_path / name, raw, CURVES))
        for name, raw in zip(("F0", "F2"), raws, strict=True)
    ]
    problems = compared.warnings(runs)
    assert "_common" in problems[0]
    assert problems[1:] == [
        "target and replacement by the true roll-off (--compute_rolloff): F0 False, F2 True"
    ]


@pytest.mark.parametrize(
    ("options", "values", "line"),
    [
        ({"val_cutoff_hz": 8000.0}, {}, "--val_cutoff_hz: A 4000.0, B 8000.0"),
        ({"val_dir": ["other"]}, {}, "--val_dir: A ['val'], B ['other']"),
        ({}, {"sampling__num_steps": 7}, f"sampling.num_steps: A {NUM_STEPS}, B 7"),
        ({}, {"sample_size": 8192}, "sample_size: A 4096, B 8192"),
    ],
)
def test_compare_other_clips_or_sampling_says_that_nothing_compares(
    tmp_path: Path, options: dict[str, Any], values: dict[str, Any], line: str
) -> None:
    first = write_run(tmp_path / "A", tiny_demo(), CURVES)
    second = write_run(tmp_path / "B", tiny_demo(**values), CURVES, **options)
    problems = compared.warnings([compared.read_run(run.name, run) for run in (first, second)])
    assert "no val/ metric can be compared" in problems[0]
    assert problems[1:] == [line]


def test_compare_warnings_are_in_the_page_and_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "A", tiny_demo(), CURVES)
    second = write_run(tmp_path / "B", tiny_demo(), CURVES, val_num_clips=5)
    run_compare(first, second, "--output", tmp_path / "out")
    text = (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert "- --val_num_clips: A 4, B 5" in text
    assert "warning: --val_num_clips: A 4, B 5" in capsys.readouterr().err


def test_compare_a_run_without_validation_has_dashes(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "A", tiny_demo(), CURVES),
        write_run(tmp_path / "B", tiny_demo(), {"train/loss": [2.0, 1.0]}),
    ]
    run_compare(*runs, "--output", tmp_path / "out")
    text = (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert "| val/lsd: best (step), newest | 1.25 (11), 1.75 | – |" in text


def test_compare_smoothed_keeps_a_line_a_line() -> None:
    steps = np.arange(500)
    x, y = compared.smoothed(steps, 3.0 * steps)
    np.testing.assert_allclose(y, 3.0 * x, atol=1.6)  # half a step off where the width is even
    assert len(x) == 491


@pytest.mark.parametrize("missing", ["metrics.csv", "options.json", "config.json"])
def test_compare_folder_that_is_no_run_is_refused(tmp_path: Path, missing: str) -> None:
    run = write_run(tmp_path / "A", tiny_demo(), CURVES)
    (run / missing).unlink()
    with pytest.raises(UserError, match=f"not a run of train_saga_sr.py: {missing}"):
        compared.read_run("A", run)


def test_compare_run_that_has_logged_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is logged yet"):
        compared.read_run("A", write_run(tmp_path / "A", tiny_demo(), {}))


def test_compare_replaces_a_comparison_only_when_told_to(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, tiny_demo(), CURVES) for name in ("F0", "F1")]
    run_compare(*runs, "--output", tmp_path / "out")
    written = (tmp_path / "out/comparison.md").read_bytes()
    with pytest.raises(UserError, match=r"comparison\.md is there; --overwrite replaces it"):
        run_compare(runs[0], "--output", tmp_path / "out")
    assert (tmp_path / "out/comparison.md").read_bytes() == written
    run_compare(runs[0], "--output", tmp_path / "out", "--overwrite")
    assert (tmp_path / "out/comparison.md").read_bytes() != written


def test_compare_two_runs_of_one_name_must_be_named(tmp_path: Path) -> None:
    for parent in ("x", "y"):
        (tmp_path / parent / "F0").mkdir(parents=True)
    folders = [str(tmp_path / parent / "F0") for parent in ("x", "y")]
    with pytest.raises(UserError, match="two are called F0; name them"):
        compare_flags.parse_args([*folders, "--output", "out"])
    named = compare_flags.parse_args([f"A={folders[0]}", f"B={folders[1]}", "--output", "out"])
    assert [name for name, _ in named.runs] == ["A", "B"]


def test_compare_help_and_wrong_folders_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['compare', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('saga_sr.compare', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    for arguments, expected in ((["--help"], "0 False"), (["nowhere", "--output", "x"], "2 False")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().endswith(expected)
        assert "Traceback" not in done.stderr


def test_compare_shows_categories_below_the_mean(tmp_path: Path) -> None:
    curves = CURVES | {
        "val/speech/lsd": [3.0, 2.0, 1.0],
        "val/speech/lsd_input": [4.5, 4.5, 4.5],
        "val/speech/si_sdr": [1.0, 3.0, 2.0],
        "val/speech/loss": [1.0, 1.0, 1.0],
    }
    runs = [
        write_run(tmp_path / "A", tiny_demo(), curves),
        write_run(tmp_path / "B", tiny_demo(), CURVES),
    ]
    run_compare(*runs, "--output", tmp_path / "out")
    lines = (tmp_path / "out/comparison.md").read_text(encoding="utf-8").splitlines()
    mean = lines.index("| val/lsd: best (step), newest | 1.25 (11), 1.75 | 1.25 (11), 1.75 |")
    assert "| val/speech/lsd: best (step), newest | 1 (21), 1 | – |" in lines[mean:]
    assert "| val/speech/si_sdr: best (step), newest | 3 (11), 2 | – |" in lines
    assert any(line.startswith("| val/speech/lsd | 4.5") for line in lines)

"""Runs read back from their folders; tables and curves of them side by side."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from saga_sr.compare.samples import METRICS, add_runs
from saga_sr.config import ModelConfig, load_model_config
from saga_sr.listen.page import Curve, ListeningPage
from saga_sr.support.errors import UserError
from saga_sr.support.files import write_text_atomic
from saga_sr.support.tables import markdown_table, number, save_figure
from saga_sr.training.metrics_csv import read_metrics

PANELS = (
    "train/loss",
    "val/loss",
    "val/velocity_error",
    "val/lsd",
    "val/lsd_hf",
    "val/high_band_error_db",
    "val/si_sdr",
)
HIGHER_IS_BETTER = ("/si_sdr", "/si_sdr_common")
BY_CATEGORY = ("lsd", "lsd_hf", "high_band_error_db", "si_sdr")
COMMON = "_common"
INPUT = "_input"
SMOOTHED_SHARE = 0.02  # of a curve's points go into one point of the training loss
LAST_SHARE = 0.05  # of the steps are "the end" of the training loss


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: in the table and the picture.
        config: the resolved model config.
        options: the flags it was started with.
        curves: metric -> (steps [N], values [N]).
    """

    name: str
    config: ModelConfig
    options: dict[str, Any]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def num_steps(self) -> int:
        return max(int(steps[-1]) for steps, _ in self.curves.values()) + 1

    def last(self, metric: str) -> float:
        """The newest value; NaN where there is none."""
        return float(self.curves[metric][1][-1]) if metric in self.curves else float("nan")

    def best(self, metric: str) -> tuple[float, int]:
        """(best value, how many steps were done then); NaN where there is none."""
        if metric not in self.curves:
            return float("nan"), 0
        steps, values = self.curves[metric]
        best = int(values.argmax() if metric.endswith(HIGHER_IS_BETTER) else values.argmin())
        return float(values[best]), int(steps[best]) + 1

    def final_train_loss(self) -> float:
        """Mean over the last 5 % of the steps."""
        if "train/loss" not in self.curves:
            return float("nan")
        _, values = self.curves["train/loss"]
        return float(values[-max(1, round(len(values) * LAST_SHARE)) :].mean())


def read_run(name: str, folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: a file is missing or broken, or nothing has been logged yet.
    """
    for file in ("metrics.csv", "options.json", "config.json"):
        if not (folder / file).is_file():
            raise UserError(f"{folder}: not a run of train_saga_sr.py: {file} is missing")
    try:
        options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / 'options.json'}: not valid JSON ({error})") from error
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, metric, value in read_metrics(folder / "metrics.csv"):
        curves.setdefault(metric, []).append((step, value))
    if not curves:
        raise UserError(f"{folder / 'metrics.csv'}: nothing is logged yet")
    arrays = {
        metric: (np.array([s for s, _ in rows]), np.array([v for _, v in rows]))
        for metric, rows in curves.items()
    }
    return Run(name, load_model_config(folder / "config.json"), options, arrays)


# ---------------------------------------------------------------------------------------------
# Are they comparable?
def common_rule(run: Run) -> dict[str, Any]:
    """What the ``_common`` metrics depend on, beside the model."""
    sampling = run.config.sampling.model_dump(mode="json")
    # Every stage with roll-off brings its own default target: it is part of the model.
    sampling.pop("target_rolloff")
    options = ("val_dir", "val_num_clips", "val_cutoff_hz")
    return {
        **{f"--{name}": run.options.get(name) for name in options},
        "sample_size": run.config.sample_size,
        "audio_channels": run.config.audio_channels,
        **{f"sampling.{name}": value for name, value in sampling.items()},
    }


def plan_rule(run: Run) -> dict[str, Any]:
    """What else the metrics without suffix depend on: the user's plan differs by stage."""
    name = "disable_val_lowfreq_replace"
    return {
        "target and replacement by the true roll-off (--compute_rolloff)": run.config.stage.rolloff,
        f"--{name}": run.options.get(name),
    }


def warnings(runs: Sequence[Run]) -> list[str]:
    """Every way in which the validations of the runs differ, and what may still be compared."""
    common = _differences(runs, [common_rule(run) for run in runs])
    plan = _differences(runs, [plan_rule(run) for run in runs])
    if not common and not plan:
        return []
    if common:
        verdict = "These runs were validated by different rules: no val/ metric can be compared."
    else:
        verdict = (
            "These runs were validated by different rules: compare the metrics that end in "
            "_common, not the others."
        )
    return [verdict, *common, *plan]


def _differences(runs: Sequence[Run], rules: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for key in rules[0]:
        values = [rule[key] for rule in rules]
        if any(value != values[0] for value in values):
            shown = (f"{run.name} {value}" for run, value in zip(runs, values, strict=True))
            lines.append(f"{key}: {', '.join(shown)}")
    return lines


# ---------------------------------------------------------------------------------------------
# Table and picture
def results_table(runs: Sequence[Run]) -> str:
    """A column per run: stage, steps, losses, and each validation metric as best (step), newest."""
    rows = [
        ["stage", *(str(run.config.stage) for run in runs)],
        ["steps", *(str(run.num_steps) for run in runs)],
        ["train/loss, mean of the last 5 %", *(number(run.final_train_loss()) for run in runs)],
    ]
    for metric in _shown_metrics(runs):
        if metric != "train/loss":
            rows.append([f"{metric}: best (step), newest", *(_result(run, metric) for run in runs)])
    return markdown_table(["", *(run.name for run in runs)], rows)


def _result(run: Run, metric: str) -> str:
    if metric not in run.curves:
        return "–"
    best, step = run.best(metric)
    return f"{best:.3g} ({step}), {run.last(metric):.3g}"


def inputs_table(runs: Sequence[Run]) -> str:
    """What the unprocessed input scores by the same metrics: equal where the clips are equal."""
    names = [name for panel in PANELS for name in (panel, *_by_category(runs, panel))]
    metrics = [name for name in names if any(name + INPUT in run.curves for run in runs)]
    rows = [[name, *(number(run.last(name + INPUT)) for run in runs)] for name in metrics]
    return markdown_table(["unprocessed input", *(run.name for run in runs)], rows) if rows else ""


def _shown_metrics(runs: Sequence[Run]) -> list[str]:
    """The panels' metrics, their common variants, and those of each category below its mean, as far
    as a run has them."""
    names = [
        name
        for panel in PANELS
        for one in (panel, *_by_category(runs, panel))
        for name in (one, one + COMMON)
    ]
    return [name for name in names if any(name in run.curves for run in runs)]


def _by_category(runs: Sequence[Run], panel: str) -> list[str]:
    """``val/speech/lsd`` and its like for ``val/lsd``."""
    group, _, metric = panel.rpartition("/")
    if group != "val" or metric not in BY_CATEGORY:
        return []
    every = {name for run in runs for name in run.curves}
    return sorted(name for name in every if fnmatch(name, f"{group}/*/{metric}"))


def draw_curves(runs: Sequence[Run]) -> Figure:
    """A panel per metric; a run keeps its colour, the common variant is dashed."""
    panels = [name for name in PANELS if name in _shown_metrics(runs)]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, metric in zip(grid.flat, panels, strict=False):
        for colour, run in enumerate(runs):
            for name, style in ((metric, "-"), (metric + COMMON, "--")):
                if name not in run.curves:
                    continue
                steps, values = _points(run, name)
                marker = "o" if len(steps) < 3 else None
                label = run.name + (" (common rule)" if style == "--" else "")
                axes.plot(steps, values, style, color=f"C{colour % 10}", marker=marker, label=label)
        axes.set_title(metric, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    return figure


def smoothed(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running mean over 2 % of the points, where it has all of them."""
    width = max(1, round(len(values) * SMOOTHED_SHARE))
    mean = np.convolve(values, np.full(width, 1 / width), mode="valid")
    first = width // 2
    return steps[first : first + len(mean)], mean


def page_curves(runs: Sequence[Run]) -> list[Curve]:
    """The lines of `draw_curves` for the listening page."""
    shown = _shown_metrics(runs)
    return [
        Curve(panel, run.name, *_points(run, name), is_common=name != panel)
        for panel in PANELS
        for run in runs
        for name in (panel, panel + COMMON)
        if name in shown and name in run.curves
    ]


def _points(run: Run, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Of a curve as it is drawn: the training loss is smoothed."""
    curve = run.curves[metric]
    return smoothed(*curve) if metric == "train/loss" else curve


def write_page(runs: Sequence[Run], folders: Sequence[Path], output: Path) -> Path:
    """``listen.html`` with what the runs' last validations wrote; warnings come first."""
    page = ListeningPage(output, ", ".join(run.name for run in runs), METRICS)
    heard = [
        (run.name, folder, float(run.options.get("val_cutoff_hz") or 4000.0))
        for run, folder in zip(runs, folders, strict=True)
    ]
    notes = add_runs(page, heard)
    return page.write(page_curves(runs), ["\n".join(warnings(runs)), *notes])


def main(flags: argparse.Namespace) -> None:
    runs = [read_run(name, Path(folder)) for name, folder in flags.runs]
    problems = warnings(runs)
    text = ["# Training runs side by side"]
    if problems:
        text += [f"**{problems[0]}**", "\n".join(f"- {line}" for line in problems[1:])]
    text += [results_table(runs), "![curves](curves.png)", inputs_table(runs)]
    save_figure(draw_curves(runs), flags.output / "curves.png")
    write_text_atomic(
        flags.output / "comparison.md", "\n\n".join(part for part in text if part) + "\n"
    )
    page = write_page(runs, [Path(folder) for _, folder in flags.runs], flags.output)
    for line in problems:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{flags.output / 'comparison.md'}, {page}: {len(runs)} runs")

"""An evaluation on paper: tables, plots, and everything that is needed to compute them again.

report.md        tables, plots and spectrograms on one page
clips.csv        one line per clip, cutoff, row and metric
run.json         definitions, files with hashes, versions, seed, and the means of the tables
boxplots-*.png   the distribution behind the means; sweep-*.png where an option was swept
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from saga_sr.evaluate.scores import NAN, Metric, mean
from saga_sr.metrics import frechet_distance
from saga_sr.support.errors import UserError
from saga_sr.support.files import write_text_atomic
from saga_sr.support.tables import DPI, markdown_table, number, save_figure

BOXED = ("lsd_hf", "high_band_error_db")
SWEPT = ("lsd_hf", "high_band_error_db", "lsd")
PICKS = ("best", "median", "worst")
TRUTH = "truth"  # the row of the truth's embeddings
Group = tuple[str, float]  # category, cutoff in Hz


@dataclass
class Results:
    """What was measured.

    Attributes:
        metrics: the metrics of a clip by name.
        rows: names of the competitors in the order of the tables.
        values: (category, cutoff) -> row -> metric -> clip -> value.
        frames: (category, cutoff) -> row -> embedding label -> frames of the clips, `TRUTH`
            among the rows.
        texture_floors: (category, cutoff) -> clip -> texture between halves of its truth, in dB.
    """

    metrics: Mapping[str, Metric]
    rows: Sequence[str]
    values: dict[Group, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    frames: dict[Group, dict[str, dict[str, list[Tensor]]]] = field(default_factory=dict)
    texture_floors: dict[Group, dict[str, float]] = field(default_factory=dict)

    def add(self, group: Group, row: str, clip: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            by_metric = self.values.setdefault(group, {}).setdefault(row, {})
            by_metric.setdefault(name, {})[clip] = value

    def add_frames(self, group: Group, row: str, label: str, frames: Tensor) -> None:
        by_label = self.frames.setdefault(group, {}).setdefault(row, {})
        by_label.setdefault(label, []).append(frames)

    @property
    def groups(self) -> list[Group]:
        return sorted(self.values, key=lambda group: (group[1], group[0]))

    @property
    def embeddings(self) -> list[str]:
        labels = [label for rows in self.frames.values() for row in rows.values() for label in row]
        return list(dict.fromkeys(labels))

    def mean(self, group: Group, row: str, metric: str) -> tuple[float, int]:
        return mean(list(self.values[group][row][metric].values()), self.metrics[metric])

    def distance(self, group: Group, row: str, label: str) -> float:
        """Frechet distance of a row from the truth; NaN where there are too few frames."""
        frames = self.frames[group]
        return _distance(frames[row][label], frames[TRUTH][label])

    def floor(self, group: Group, label: str) -> float:
        """Frechet distance between every other clip of the truth and the rest: what is nothing."""
        clips = self.frames[group][TRUTH][label]
        return _distance(clips[::2], clips[1::2])

    def num_frames(self, group: Group, label: str) -> tuple[int, int]:
        """(frames, dimensions) of the truth of a group."""
        frames = torch.cat(self.frames[group][TRUTH][label])
        return frames.shape[0], frames.shape[1]

    def ranked(self, group: Group, row: str, metric: str) -> list[str]:
        """Clips of a row from the best to the worst by a metric that should be low."""
        values = self.values[group][row][metric]
        return sorted((c for c in values if not math.isnan(values[c])), key=lambda c: values[c])

    def picks(self, group: Group, row: str) -> dict[str, str]:
        """The best, the median and the worst clip of a row by band error; fewer if there are."""
        clips = self.ranked(group, row, "high_band_error_db")
        if not clips:
            return {}
        chosen = dict(zip(PICKS, (clips[0], clips[len(clips) // 2], clips[-1]), strict=True))
        return {pick: clip for pick, clip in chosen.items() if pick == PICKS[0] or len(clips) > 2}

    def table(self) -> list[dict[str, Any]]:
        """One JSON object per row of the tables: means, counts and distances."""
        lines = []
        for group in self.groups:
            for row in self.values[group]:
                means = {name: self.mean(group, row, name) for name in self.metrics}
                lines.append(
                    {
                        "category": group[0],
                        "cutoff_hz": group[1],
                        "row": row,
                        "means": {name: _json(value) for name, (value, _) in means.items()},
                        "clips": {name: count for name, (_, count) in means.items()},
                        "distances": {
                            label: _json(self.distance(group, row, label))
                            for label in self.embeddings
                        },
                    }
                )
        return lines


def _distance(est: Sequence[Tensor], ref: Sequence[Tensor]) -> float:
    try:
        return frechet_distance(torch.cat(list(est)), torch.cat(list(ref)))
    except (UserError, RuntimeError):  # too few frames, or none; the report says how many
        return NAN


def _json(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def write_csv(path: Path, results: Results) -> None:
    """One line per clip, cutoff, row and metric; no value is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("category", "cutoff_hz", "row", "clip", "metric", "value"))
    for group in results.groups:
        for row, by_metric in results.values[group].items():
            for metric, by_clip in by_metric.items():
                for clip, value in by_clip.items():
                    shown = "" if math.isnan(value) else f"{value:.6g}"
                    writer.writerow((group[0], f"{group[1]:g}", row, clip, metric, shown))
    write_text_atomic(path, text.getvalue())


# ---------------------------------------------------------------------------------------------
# Tables
SUMMARY_METRICS = ("lsd", "high_band_error_db")


def summary_table(results: Results) -> str:
    """LSD and band error of every row, a column for each category and cutoff."""
    title = ", ".join(results.metrics[name].label for name in SUMMARY_METRICS)
    header = [title, *(f"{category}, {hz / 1000:g} kHz" for category, hz in results.groups)]
    rows = []
    for row in results.rows:
        cells = [
            ", ".join(number(results.mean(group, row, name)[0]) for name in SUMMARY_METRICS)
            if row in results.values[group]
            else "–"
            for group in results.groups
        ]
        rows.append([row, *cells])
    return markdown_table(header, rows)


def group_table(results: Results, group: Group) -> str:
    """The table of one category at one cutoff; a row that has no clip is left out."""
    labels = results.embeddings
    header = ["", *(metric.label for metric in results.metrics.values()), *labels]
    rows = []
    for row in results.rows:
        if row in results.values[group]:
            means = [number(results.mean(group, row, name)[0]) for name in results.metrics]
            distances = [number(results.distance(group, row, label)) for label in labels]
            rows.append([row, *means, *distances])
    return markdown_table(header, rows)


def group_notes(results: Results, group: Group) -> list[str]:
    """What must be known to read a table: missing values and missing frames."""
    notes, rows = [], list(results.values[group])
    total = len(results.values[group][rows[0]]["lsd"])
    for name, metric in results.metrics.items():
        counts = {row: results.mean(group, row, name)[1] for row in rows}
        if len(set(counts.values())) == 1:
            counts = {"All rows": counts[rows[0]]}
        notes += [
            f"{row}: {metric.label} has a value for {count} of {total} clips."
            for row, count in counts.items()
            if count < total
        ]
    if floors := _finite(results.texture_floors.get(group, {}).values()):
        mean_floor = number(sum(floors) / len(floors))
        notes.append(f"Texture (dB) between two halves of each truth: {mean_floor}.")
    for label in results.embeddings:
        frames, dimensions = results.num_frames(group, label)
        if frames <= dimensions:
            notes.append(
                f"{label} is not reported: {frames} frames are not more than its {dimensions} "
                "dimensions. Evaluate more clips."
            )
        elif not math.isnan(floor := results.floor(group, label)):
            notes.append(f"{label} between the halves of the truth's own clips: {number(floor)}.")
    return notes


# ---------------------------------------------------------------------------------------------
# Plots
def draw_boxplots(results: Results, cutoff_hz: float, rows: Sequence[str]) -> Figure:
    """Distribution over clips of the two high-band metrics, a column of panels per category."""
    groups = [group for group in results.groups if group[1] == cutoff_hz]
    height = 1.2 + 0.32 * len(rows)
    figure = Figure(
        figsize=(2.0 + 3.6 * len(groups), height * len(BOXED)), layout="constrained", dpi=DPI
    )
    grid = figure.subplots(len(BOXED), len(groups), squeeze=False, sharey=True, sharex="row")
    for line, metric in zip(grid, BOXED, strict=True):
        for axes, group in zip(line, groups, strict=True):
            present = [row for row in reversed(rows) if row in results.values[group]]
            values = [_finite(results.values[group][row][metric].values()) for row in present]
            axes.boxplot(values, orientation="horizontal", widths=0.6, showmeans=True)
            axes.set_yticks(range(1, len(present) + 1), present, fontsize=8)
            axes.set_title(f"{group[0]}, {cutoff_hz / 1000:g} kHz", fontsize=10)
            axes.set_xlabel(results.metrics[metric].label, fontsize=9)
            axes.grid(axis="x", alpha=0.3)
    return figure


def _finite(values: Any) -> list[float]:
    return [value for value in values if not math.isnan(value)]


@dataclass(frozen=True)
class SweepPoint:
    """One value of a swept option.

    Attributes:
        model: the model that was swept.
        value: of the option.
        row: its name in the results.
    """

    model: str
    value: float
    row: str


def draw_sweep(results: Results, option: str, points: Sequence[SweepPoint]) -> Figure:
    """Means over an option's values: a row of panels per metric, a column per category."""
    categories = sorted({category for category, _ in results.groups})
    figure = Figure(
        figsize=(1.0 + 3.8 * len(categories), 2.7 * len(SWEPT)), layout="constrained", dpi=DPI
    )
    grid = figure.subplots(len(SWEPT), len(categories), squeeze=False, sharex=True)
    for line, metric in zip(grid, SWEPT, strict=True):
        for axes, category in zip(line, categories, strict=True):
            for label, x, y in _curves(results, category, metric, points):
                axes.plot(x, y, marker="o", markersize=3, label=label)
            axes.set_title(category, fontsize=10)
            axes.set_ylabel(results.metrics[metric].label, fontsize=9)
            axes.grid(alpha=0.3)
            if option == "num_steps":
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter("{x:g}")
    for axes in grid[-1]:
        axes.set_xlabel(option, fontsize=9)
    grid[0, 0].legend(fontsize=8)
    return figure


def _curves(
    results: Results, category: str, metric: str, points: Sequence[SweepPoint]
) -> list[tuple[str, list[float], list[float]]]:
    """(label, values of the option, means) per model and cutoff."""
    curves = []
    cutoffs = sorted({hz for name, hz in results.groups if name == category})
    for model in dict.fromkeys(point.model for point in points):
        ours = sorted((p for p in points if p.model == model), key=lambda p: p.value)
        for cutoff_hz in cutoffs:
            y = [results.mean((category, cutoff_hz), p.row, metric)[0] for p in ours]
            label = f"{model}, {cutoff_hz / 1000:g} kHz"
            curves.append((label, [p.value for p in ours], y))
    return curves


# ---------------------------------------------------------------------------------------------
# The page
def write_report(
    folder: Path,
    results: Results,
    introduction: Sequence[str],
    notes_of: Callable[[Group], Sequence[str]],
    pictures: Mapping[Group, Mapping[str, Path]],
    sweeps: Mapping[str, Sequence[SweepPoint]],
) -> None:
    """Write the plots and ``report.md``.

    Args:
        folder: of everything.
        results: all that was measured.
        introduction: paragraphs before the tables.
        notes_of: lines below the table of a group.
        pictures: spectrograms of a group, caption -> file below ``folder``.
        sweeps: option -> its points.
    """
    swept = {point.row for points in sweeps.values() for point in points}
    boxed = [row for row in results.rows if row not in swept]
    text = ["# Evaluation", *introduction, summary_table(results), _definitions(results)]
    for cutoff_hz in sorted({hz for _, hz in results.groups}):
        text.append(f"## {cutoff_hz / 1000:g} kHz")
        for group in (one for one in results.groups if one[1] == cutoff_hz):
            text.append(f"### {group[0]}, {cutoff_hz / 1000:g} kHz ({_count(results, group)})")
            text.append(group_table(results, group))
            notes = [*notes_of(group), *group_notes(results, group)]
            text.append("\n".join(f"- {note}" for note in notes))
            text += [f"![{name}]({file.as_posix()})" for name, file in pictures[group].items()]
        name = f"boxplots-{cutoff_hz:g}.png"
        save_figure(draw_boxplots(results, cutoff_hz, boxed), folder / name)
        text += [f"![distribution over clips]({name})", "Line: median; triangle: mean."]
    for option, points in sweeps.items():
        save_figure(draw_sweep(results, option, points), folder / f"sweep-{option}.png")
        text += [f"## Sweep of {option}", f"![sweep of {option}](sweep-{option}.png)"]
    write_text_atomic(folder / "report.md", "\n\n".join(part for part in text if part) + "\n")


def _count(results: Results, group: Group) -> str:
    clips = {clip for by_metric in results.values[group].values() for clip in by_metric["lsd"]}
    return f"{len(clips)} clip{'s' * (len(clips) != 1)}"


def _definitions(results: Results) -> str:
    lines = [f"- {metric.label}: {metric.meaning}." for metric in results.metrics.values()]
    if "FD offline" in results.embeddings:
        lines.append(
            "- FD offline: Frechet distance over band statistics. It needs no download and is not "
            "comparable with any published FD."
        )
    return "\n".join(lines)


def picture_name(group: Group, row: str, pick: str) -> str:
    """File name of a spectrogram page: letters, digits and dashes only."""
    safe = "".join(c if c.isalnum() else "-" for c in f"{group[0]}-{group[1]:g}-{row}-{pick}")
    return f"{safe}.png"


def percentiles(values: Sequence[float]) -> str:
    """Such as ``15.2 / 16.0 / 19.8``: the 10th, 50th and 90th percentile."""
    return " / ".join(f"{value:.1f}" for value in np.percentile(values, [10, 50, 90]))

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

from saga_sr.evaluate.intervals import Interval, interval, resampled_counts, weighted_means
from saga_sr.evaluate.scores import NAN, Metric, mean
from saga_sr.evaluate.sets import DISTANCES, Embedding
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
        embeddings: of sets of clips.
        files: clip -> the file it is from; a clip that is not listed is a file of its own.
        pairs: (row, other row) of which the difference is reported.
        seed: of the resamples.
        values: (category, cutoff) -> row -> metric -> clip -> value; a metric that is no matter of
            a row is not there.
        frames: (category, cutoff) -> row -> embedding -> frames of the clips, `TRUTH` among the
            rows.
        texture_floors: (category, cutoff) -> clip -> texture between halves of its truth, in dB.
    """

    metrics: Mapping[str, Metric]
    rows: Sequence[str]
    embeddings: Sequence[Embedding] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    seed: int = 0
    values: dict[Group, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    frames: dict[Group, dict[str, dict[str, list[Tensor]]]] = field(default_factory=dict)
    texture_floors: dict[Group, dict[str, float]] = field(default_factory=dict)
    _counts: dict[Group, np.ndarray] = field(default_factory=dict)
    _distances: dict[tuple[Group, str, str], np.ndarray] = field(default_factory=dict)

    def add(self, group: Group, row: str, clip: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            by_metric = self.values.setdefault(group, {}).setdefault(row, {})
            by_metric.setdefault(name, {})[clip] = value

    def add_frames(self, group: Group, row: str, embedding: str, frames: Tensor) -> None:
        by_name = self.frames.setdefault(group, {}).setdefault(row, {})
        by_name.setdefault(embedding, []).append(frames)

    @property
    def groups(self) -> list[Group]:
        return sorted(self.values, key=lambda group: (group[1], group[0]))

    @property
    def distances(self) -> dict[str, tuple[str, Embedding]]:
        """Label of a column, such as ``FD offline`` -> distance and embedding."""
        return {
            f"{distance} {embedding.name}": (distance, embedding)
            for embedding in self.embeddings
            for distance in embedding.distances
        }

    def clips(self, group: Group) -> list[str]:
        """The clips of a group in the order in which they were measured."""
        return list(self.values[group][next(iter(self.values[group]))]["lsd"])

    def mean(self, group: Group, row: str, metric: str) -> tuple[float, int]:
        by_clip = self.values[group][row].get(metric, {})
        return mean(list(by_clip.values()), self.metrics[metric])

    def distance(self, group: Group, row: str, label: str) -> float:
        """Distance of a row from the truth; NaN where there are too few frames or files."""
        return float(self._distance(group, row, label)[0])

    def floor(self, group: Group, label: str) -> float:
        """Frechet distance between every other clip of the truth and the rest: what is nothing."""
        clips = self.frames[group][TRUTH][self.distances[label][1].name]
        try:
            return frechet_distance(torch.cat(clips[::2]), torch.cat(clips[1::2]))
        except (UserError, RuntimeError):  # too few frames, or none
            return NAN

    def num_frames(self, group: Group, label: str) -> tuple[int, int]:
        """(frames, dimensions) of the truth of a group."""
        frames = torch.cat(self.frames[group][TRUTH][self.distances[label][1].name])
        return frames.shape[0], frames.shape[1]

    # --- intervals ------------------------------------------------------------------------------

    def interval(self, group: Group, row: str, name: str) -> Interval | None:
        """Of the mean of a metric, or of a distance."""
        if name in self.distances:
            return interval(self._distance(group, row, name), self._num_files(group))
        values = self._of_clips(group, row, name)
        return interval(
            weighted_means(values, self.counts(group)), self._num_files(group, ~np.isnan(values))
        )

    def difference(
        self, group: Group, row: str, other: str, name: str
    ) -> tuple[float, Interval | None, int]:
        """A row less another: the difference of the means of a metric over the clips where both
        have a value, or of their distances; its interval; how many clips count."""
        if name in self.distances:
            drawn = self._distance(group, row, name) - self._distance(group, other, name)
            count = len(self.clips(group))
            return float(drawn[0]), interval(drawn, self._num_files(group)), count
        values = self._of_clips(group, row, name) - self._of_clips(group, other, name)
        present = ~np.isnan(values)
        drawn = weighted_means(values, self.counts(group))
        files = self._num_files(group, present)
        return float(drawn[0]), interval(drawn, files), int(present.sum())

    def counts(self, group: Group) -> np.ndarray:
        """How often each clip counts: the same draws for all rows and metrics of a group."""
        if group not in self._counts:
            self._counts[group] = resampled_counts(self._files(group), self.seed, group[0])
        return self._counts[group]

    def _files(self, group: Group) -> list[str]:
        return [self.files.get(clip, clip) for clip in self.clips(group)]

    def _num_files(self, group: Group, present: np.ndarray | None = None) -> int:
        files = np.asarray(self._files(group))
        return len(set(files if present is None else files[present]))

    def _of_clips(self, group: Group, row: str, metric: str) -> np.ndarray:
        by_clip = self.values[group][row].get(metric, {})
        values = np.array([by_clip.get(clip, NAN) for clip in self.clips(group)])
        return np.abs(values) if self.metrics[metric].good == "zero" else values

    def _distance(self, group: Group, row: str, label: str) -> np.ndarray:
        key = (group, row, label)
        if key not in self._distances:
            distance, embedding = self.distances[label]
            est, ref = (self.frames[group][name][embedding.name] for name in (row, TRUTH))
            files, counts = self._files(group), self.counts(group)
            self._distances[key] = DISTANCES[distance](est, ref, files, counts)
        return self._distances[key]

    # --- tables ---------------------------------------------------------------------------------

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
        """One JSON object per row of the tables: means, counts, distances and intervals."""
        lines = []
        for group in self.groups:
            for row, by_metric in self.values[group].items():
                means = {name: self.mean(group, row, name) for name in by_metric}
                lines.append(
                    {
                        "category": group[0],
                        "cutoff_hz": group[1],
                        "row": row,
                        "means": {name: _json(value) for name, (value, _) in means.items()},
                        "clips": {name: count for name, (_, count) in means.items()},
                        "distances": {
                            label: _json(self.distance(group, row, label))
                            for label in self.distances
                        },
                        "intervals": {
                            name: self.interval(group, row, name)
                            for name in (*by_metric, *self.distances)
                        },
                    }
                )
        return lines

    def differences(self) -> list[dict[str, Any]]:
        """One JSON object per group and pair of rows: each difference, interval and count."""
        lines = []
        for group in self.groups:
            for row, other in self.pairs_of(group):
                found = {
                    name: self.difference(group, row, other, name)
                    for name in self._shared(group, row, other)
                }
                lines.append(
                    {
                        "category": group[0],
                        "cutoff_hz": group[1],
                        "row": row,
                        "minus": other,
                        "differences": {name: _json(one[0]) for name, one in found.items()},
                        "intervals": {name: one[1] for name, one in found.items()},
                        "clips": {name: one[2] for name, one in found.items()},
                    }
                )
        return lines

    def pairs_of(self, group: Group) -> list[tuple[str, str]]:
        """The pairs of which both rows have clips in a group."""
        rows = self.values[group]
        return [(row, other) for row, other in self.pairs if row in rows and other in rows]

    def _shared(self, group: Group, row: str, other: str) -> list[str]:
        """What both rows have: metrics, then distances."""
        ours, theirs = self.values[group][row], self.values[group][other]
        return [*(name for name in ours if name in theirs), *self.distances]


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
# with intervals in the tables, and of the differences
COMPARED = (
    "velocity_error", "lsd", "lsd_hf", "high_band_error_db", "texture_db", "si_sdr", "change_db",
)  # fmt: skip


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
    """The table of one category at one cutoff: means and distances, the main ones with intervals.

    A row that has no clip is left out, and a column where no row has a value.
    """
    rows = [row for row in results.rows if row in results.values[group]]
    columns = {n: metric.label for n, metric in results.metrics.items() if metric.is_tabled}
    columns |= {label: label for label in results.distances}
    sure = {*COMPARED, *results.distances}
    cells = {
        name: [
            _cell(
                _value(results, group, row, name),
                results.interval(group, row, name) if name in sure else None,
            )
            for row in rows
        ]
        for name in columns
    }
    shown = [name for name in columns if set(cells[name]) != {number(NAN)}]
    header = ["", *(columns[name] for name in shown)]
    lines = [[row, *(cells[name][line] for name in shown)] for line, row in enumerate(rows)]
    return markdown_table(header, lines)


def _value(results: Results, group: Group, row: str, name: str) -> float:
    if name in results.distances:
        return results.distance(group, row, name)
    return results.mean(group, row, name)[0]


def _cell(value: float, interval: Interval | None) -> str:
    """Such as ``1.23 (1.10 to 1.37)``."""
    if interval is None:
        return number(value)
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})"


def differences_table(results: Results, group: Group) -> str:
    """Pairs of rows on the same clips; bold where the interval lies on one side of zero."""
    shown = [n for n, metric in results.metrics.items() if n in COMPARED] + [*results.distances]
    lines = []
    for row, other in results.pairs_of(group):
        line = [f"{row} – {other}"]
        for name in shown:
            value, between, _ = results.difference(group, row, other, name)
            cell = _cell(value, between)
            sure = between is not None and (between[0] > 0 or between[1] < 0)
            line.append(f"**{cell}**" if sure else cell)
        lines.append(line)
    labels = [results.metrics[n].label if n in results.metrics else n for n in shown]
    return markdown_table(["difference", *labels], lines) if lines else ""


def group_notes(results: Results, group: Group) -> list[str]:
    """What must be known to read a table: missing values and missing frames."""
    notes, rows = [], results.values[group]
    total = len(results.clips(group))
    for name, metric in results.metrics.items():
        counts = {row: results.mean(group, row, name)[1] for row in rows if name in rows[row]}
        if len(counts) == len(rows) and len(set(counts.values())) == 1:
            counts = {"All rows": next(iter(counts.values()))}
        notes += [
            f"{row}: {metric.label} has a value for {count} of {total} clips."
            for row, count in counts.items()
            if count < total
        ]
    if floors := _finite(results.texture_floors.get(group, {}).values()):
        mean_floor = number(sum(floors) / len(floors))
        notes.append(f"Texture (dB) between two halves of each truth: {mean_floor}.")
    for label, (distance, _) in results.distances.items():
        if distance == "KD":
            continue  # 0 is expected of equal distributions
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
            text += [group_table(results, group), differences_table(results, group)]
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
    lines = [f"- {m.label}: {m.meaning}." for m in results.metrics.values() if m.is_tabled]
    lines += [
        "- FD: Frechet distance of the outputs from the truths, KD: kernel distance, times 100 "
        "(unbiased: 0 is expected of equal distributions). Offline: over band statistics, not "
        "comparable with anything published; aisfx: over a network trained on sound effects.",
        "- In brackets: 95 % intervals by the bootstrap over files. Differences are of the same "
        "clips; bold where the interval leaves zero out.",
    ]
    return "\n".join(lines)


def picture_name(group: Group, row: str, pick: str) -> str:
    """File name of a spectrogram page: letters, digits and dashes only."""
    safe = "".join(c if c.isalnum() else "-" for c in f"{group[0]}-{group[1]:g}-{row}-{pick}")
    return f"{safe}.png"


def percentiles(values: Sequence[float]) -> str:
    """Such as ``15.2 / 16.0 / 19.8``: the 10th, 50th and 90th percentile."""
    return " / ".join(f"{value:.1f}" for value in np.percentile(values, [10, 50, 90]))

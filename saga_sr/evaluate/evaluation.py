"""One evaluation: every row of the tables on the same clips, by the same metrics."""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor
from tqdm import tqdm

from saga_sr.audio.index import AudioIndex
from saga_sr.audio.spectrogram import comparison_figure
from saga_sr.degradation import Degradation
from saga_sr.evaluate.baselines import DEFAULT_ENVELOPE, NoiseEnvelope, fit_envelope
from saga_sr.evaluate.clips import Clip, Clips, choose_clips
from saga_sr.evaluate.competitors import (
    ORACLE,
    BandReplication,
    Ceiling,
    Competitor,
    Example,
    Model,
    Predictions,
    ShapedNoise,
    Told,
    Unprocessed,
)
from saga_sr.evaluate.intervals import COVERAGE, RESAMPLES
from saga_sr.evaluate.report import (
    TRUTH,
    Group,
    Results,
    SweepPoint,
    percentiles,
    picture_name,
    summary_table,
    write_csv,
    write_report,
)
from saga_sr.evaluate.scores import (
    CLIP_METRICS,
    Measured,
    Metric,
    recogniser_metrics,
    visqol_metric,
)
from saga_sr.evaluate.sets import Aisfx, Embedding, OfflineEmbedding, OpenL3
from saga_sr.evaluate.sources import Shared, shared_sources
from saga_sr.evaluate.velocity import velocity_errors
from saga_sr.listen.page import ANCHOR, ListeningPage, PageClip, PageMetric, Role, Version
from saga_sr.lowfreq import Mode
from saga_sr.lowpass import field_lowpass
from saga_sr.metrics import BAND_FLOOR_DBFS, LSD_DEFINITIONS, texture_floor_db
from saga_sr.model import SAGASRModel
from saga_sr.support.device import pick_device, pick_precision
from saga_sr.support.environment import describe_environment, plain_options
from saga_sr.support.errors import UserError
from saga_sr.support.files import atomic_path, native_name, write_json_atomic
from saga_sr.support.naming import named_folders
from saga_sr.text import TextEncoder
from saga_sr.upsample.options import UpsampleOptions

KEPT_BYTES = 1 << 29  # of estimates in memory, for the pictures

# of the metrics that are always measured; the tables have all
ON_PAGE = ("lsd", "lsd_hf", "high_band_error_db", "seam_step_db", "si_sdr")
# per category of --noise_envelope
ENVELOPE_CLIPS, ENVELOPE_CLIP_S = 60, 6.0


# ---------------------------------------------------------------------------------------------
# Rows
def load_models(flags: argparse.Namespace) -> list[Model]:
    """The models that ``--model`` names, on their device.

    Raises:
        UserError: one cannot be loaded, two rows have one name, or their sample rates differ.
    """
    device = pick_device(flags.device)
    oracle = flags.target_rolloff == ORACLE
    target = flags.target_rolloff if isinstance(flags.target_rolloff, float) else None
    options = UpsampleOptions.of(flags, target_rolloff=target)
    models = []
    for name, folder in named_folders(flags.model, "--model"):
        loaded = SAGASRModel.from_pretrained(folder).to(device)
        rolloff = loaded.config.stage.rolloff
        if not rolloff and (oracle or target is not None):
            raise UserError(f"--target_rolloff: {name} was trained without --compute_rolloff")
        told: Told = "none" if flags.no_text else "own"
        models.append(Model(name, loaded, folder, options, oracle, told))
    rates = {model.name: model.model.config.sample_rate for model in models}
    if flags.sample_rate is not None:
        rates["--sample_rate"] = flags.sample_rate
    if len(set(rates.values())) > 1:
        raise UserError.listing(
            "the sample rates differ", [f"{name}: {rate} Hz" for name, rate in rates.items()]
        )
    return models


def swept(model: Model, option: str, value: float) -> Model:
    """The model at one point of a sweep."""
    chosen: dict[str, Any] = {option: int(value) if option == "num_steps" else value}
    return model.varied(
        f"{option}={value:g}",
        options=replace(model.options, **chosen),
        oracle=model.oracle and option != "target_rolloff",
        sweep=(option, value),
    )


def controls(model: Model, wanted: Sequence[str]) -> list[Model]:
    """The model with one condition changed, for each that ``--controls`` asks for and it has."""
    rows = []
    for name in wanted:
        option, _, value = name.partition("=")
        if option == "other_seed":
            options = replace(model.options, seed=model.options.seed + 1)
            rows.append(model.varied("other seed", options=options))
        elif option == "no_replacement" and model.options.crossover != "off":
            options = replace(model.options, crossover="off")
            rows.append(model.varied("without replacement", options=options))
        elif option == "target_rolloff" and model.model.config.stage.rolloff:
            rows.append(replace(swept(model, option, float(value)), sweep=None))
        elif option == "true_rolloff" and model.model.config.stage.rolloff:
            rows.append(model.varied("true roll-off", oracle=True))
        elif option == "wrong_text" and model.has_text:
            rows.append(model.varied("wrong text", told="other"))
        elif option == "no_text" and model.has_text:
            rows.append(model.varied("no text", told="none"))
    return rows


def ceilings(models: Sequence[Model], flags: argparse.Namespace) -> list[Ceiling]:
    """One for each distinct pretransform."""
    distinct: list[Model] = []
    for model in models:
        if not any(_same_pretransform(model.model, other.model) for other in distinct):
            distinct.append(model)
    names = ["ceiling"] if len(distinct) == 1 else [f"ceiling of {m.name}" for m in distinct]
    return [
        Ceiling(model.model, flags.crossover, name)
        for model, name in zip(distinct, names, strict=True)
    ]


def starts(models: Sequence[Model]) -> list[Model]:
    """What each makes without its DiT."""
    alone = len(models) == 1
    return [model.start("start" if alone else f"start of {model.name}") for model in models]


def _same_pretransform(one: SAGASRModel, other: SAGASRModel) -> bool:
    ours, theirs = one.pretransform.state_dict(), other.pretransform.state_dict()
    return one.config.model.pretransform == other.config.model.pretransform and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


def build_rows(flags: argparse.Namespace, models: Sequence[Model], rate: int) -> list[Competitor]:
    """All rows in the order of the tables."""
    envelope = DEFAULT_ENVELOPE
    if flags.noise_envelope is not None:
        envelope = corpus_envelope(flags.noise_envelope, rate)
    predictions = []
    for name, folder in named_folders(flags.predictions, "--predictions"):
        if not Path(folder).is_dir():
            raise UserError(f"--predictions {folder}: no such folder")
        predictions.append(Predictions(Path(folder), name, flat=len(flags.cutoffs) == 1))
    # The baselines fill a band above the input's; without the input they are nothing.
    baseline: Mode = "soft" if flags.crossover == "off" else flags.crossover
    rows: list[Competitor] = [
        Unprocessed(),
        *ceilings(models, flags),
        BandReplication(baseline),
        ShapedNoise(baseline, flags.seed, envelope),
        *predictions,
        *starts(models),
        *models,
        *(control for model in models for control in controls(model, flags.controls)),
        *(swept(m, o, v) for m in models for o, values in flags.sweep.items() for v in values),
    ]
    names = [row.name for row in rows]
    for control in flags.controls:
        if not any(controls(model, [control]) for model in models):
            raise UserError(f"--controls {control}: no --model has that condition")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two rows are called {', '.join(twice)}; name them: NAME=FOLDER")
    if reserved := {TRUTH, ANCHOR} & set(names):
        raise UserError(f"no row can be called {', '.join(sorted(reserved))}; name it: NAME=FOLDER")
    return rows


def corpus_envelope(folder: Path, sample_rate: int) -> NoiseEnvelope:
    """Average spectrum of up to 60 files per category."""
    index = AudioIndex.scan([folder], flag="--noise_envelope")
    chosen = choose_clips(index, ENVELOPE_CLIPS, ENVELOPE_CLIP_S, sample_rate, seed=0)

    def clips() -> Iterator[tuple[Tensor, int]]:
        for clip in chosen:
            crop = clip.crop
            audio = index.read(crop.position, crop.start, crop.length, sample_rate)
            yield torch.from_numpy(audio), sample_rate

    return fit_envelope(clips())


# ---------------------------------------------------------------------------------------------
# Measuring
class Evaluation:
    """One run: clips, rows and metrics, and what came of them.

    Attributes:
        clips, rows, metrics, embeddings: what takes part.
        results: filled by `measure_all`.
        seconds: row -> computing time.
    """

    def __init__(
        self,
        flags: argparse.Namespace,
        clips: Clips,
        rows: Sequence[Competitor],
        metrics: dict[str, Metric],
        embeddings: Sequence[Embedding],
    ) -> None:
        self.flags, self.clips, self.rows = flags, clips, rows
        self.metrics, self.embeddings = metrics, embeddings
        files = {clip.name: clips.index.relative_path(clip.crop.position) for clip in clips.clips}
        self.results = Results(
            metrics, [row.name for row in rows], embeddings, files, pairs(rows), flags.seed
        )
        self.work: list[tuple[float, Clip]] = []
        self.left_out: list[tuple[float, Clip, str]] = []
        for cutoff_hz in flags.cutoffs:
            self._take(cutoff_hz, *clips.low_passed(cutoff_hz))
        for name in flags.degradations:
            self._take(*clips.degraded(Degradation.parse(name)))
        self.seconds: dict[str, float] = defaultdict(float)
        self.audio_seconds = 0.0
        self.page = ListeningPage(flags.output, str(flags.data), page_metrics(metrics))
        self._kept: dict[tuple[str, str, Group], Tensor] = {}
        self._kept_bytes = 0

    def _take(self, cutoff_hz: float, clips: list[Clip], problems: dict[Clip, str]) -> None:
        self.work += [(cutoff_hz, clip) for clip in clips]
        self.left_out += [(cutoff_hz, clip, problem) for clip, problem in problems.items()]

    def check(self) -> None:
        """Everything that can be found out before the long work begins.

        Raises:
            UserError: nothing can be measured, or predictions do not fit.
        """
        rate, wanted = self.clips.sample_rate, []
        if max(self.flags.cutoffs) >= rate / 2:
            raise UserError(f"--cutoffs: {max(self.flags.cutoffs):g} Hz is not below {rate / 2:g}")
        for cutoff_hz, clip in self.work:
            if clip.degradation is None:
                wanted.append((clip.name, cutoff_hz, self.clips.channels(clip), clip.crop.length))
        if not wanted:
            reasons = sorted(problem for _, _, problem in self.left_out)
            raise UserError(f"--data {self.flags.data}: no clip can be measured: {reasons[0]}")
        for row in self.rows:
            if isinstance(row, Predictions):
                row.check(wanted, rate)
        if any(isinstance(row, Model) and row.told == "other" for row in self.rows) and (
            len(set(self.clips.prompts()) - {""}) < 2
        ):
            raise UserError("--controls wrong_text: the clips have no two different texts")
        for row in self.rows:  # a wrong option is an error now, not after an hour
            if isinstance(row, Model):
                row.restore(_tiny_example(row))

    def measure_all(self) -> None:
        for cutoff_hz, clip in tqdm(self.work, "Measuring", unit="clip", disable=None):
            example = self.clips.example(clip, cutoff_hz)
            group = (clip.category, cutoff_hz)
            self.audio_seconds += clip.crop.length / self.clips.sample_rate
            self._embed(group, TRUTH, example.truth)
            self.results.texture_floors.setdefault(group, {})[clip.name] = texture_floor_db(
                example.truth[None],
                example.lowpass.cutoff_hz,
                example.sample_rate,
                clip.measured_end_hz(example.sample_rate),
            ).item()
            self._write_audio(
                f"inputs/{_folder(clip, cutoff_hz)}/{clip.name}", example.lr_audio, inputs=True
            )
            self._write_audio(f"truth/{clip.name}", example.truth, inputs=True)
            estimates: dict[str, Tensor] = {}
            for row in self.rows:
                estimates[row.name] = self._measure(group, clip, example, row, estimates)
            if clip in self._heard(group):
                self._add_to_page(group, example, estimates)

    def _measure(
        self,
        group: Group,
        clip: Clip,
        example: Example,
        row: Competitor,
        before: Mapping[str, Tensor],
    ) -> Tensor:
        start = time.perf_counter()
        estimate = row.restore(example)
        self.seconds[row.name] += time.perf_counter() - start
        self._keep(row, clip.name, group, estimate)
        end_hz = clip.measured_end_hz(example.sample_rate)
        unchanged = None if row.varies is None else before[row.varies]
        errors: dict[str, float] = {}
        if isinstance(row, Model) and row.options.num_steps != 0:  # the start has no transformer
            errors = velocity_errors(row.model, example, end_hz, *row.conditions(example))
        measured = Measured(estimate, example, end_hz, unchanged, errors)
        values = {name: metric.compute(measured) for name, metric in self.metrics.items()}
        self.results.add(
            group, row.name, clip.name, {n: v for n, v in values.items() if v is not None}
        )
        self._embed(group, row.name, estimate)
        self._write_audio(
            f"{row.name}/{_folder(clip, group[1])}/{clip.name}", estimate, inputs=False
        )
        return estimate

    def _embed(self, group: Group, row: str, audio: Tensor) -> None:
        for embedding in self.embeddings:
            frames = embedding(audio, self.clips.sample_rate)
            self.results.add_frames(group, row, embedding.name, frames)

    def _write_audio(self, name: str, audio: Tensor, inputs: bool) -> None:
        """A WAV in float below ``audio``, where ``--write_audio`` asks for it."""
        wanted = self.flags.write_audio
        if wanted is None or (wanted == "inputs" and not inputs):
            return
        with atomic_path(self.flags.output / "audio" / f"{name}.wav") as temporary:
            soundfile.write(
                native_name(temporary), audio.T.numpy(), self.clips.sample_rate, subtype="FLOAT"
            )

    # --- listening page -------------------------------------------------------------------------

    def _of(self, group: Group) -> list[Clip]:
        return [clip for hz, clip in self.work if (clip.category, hz) == group]

    def _heard(self, group: Group) -> list[Clip]:
        """The clips of a group on the listening page, evenly spread over their names."""
        clips = self._of(group)
        count = min(self.flags.num_listen, len(clips))
        return [clips[(2 * turn + 1) * len(clips) // (2 * count)] for turn in range(count)]

    def _add_to_page(self, group: Group, example: Example, estimates: Mapping[str, Tensor]) -> None:
        text = example.prompt or example.transcript
        clip = PageClip(example.name, group[0], example.sample_rate, example.lowpass, text)
        versions = [Version(TRUTH, "truth", example.truth)]
        for row in self.rows:
            if row.sweep is None:
                by_metric = self.results.values[group][row.name]
                values = {name: by_metric[name][example.name] for name in self.page.metrics}
                versions.append(Version(row.name, role_of(row), estimates[row.name], values))
        self.page.add(clip, versions)

    # --- pictures -------------------------------------------------------------------------------

    def _keep(self, row: Competitor, clip: str, group: Group, estimate: Tensor) -> None:
        """Remember an estimate that may be drawn, as long as there is room."""
        if row.sweep is None and self._kept_bytes + estimate.nbytes <= KEPT_BYTES:
            self._kept[row.name, clip, group] = estimate
            self._kept_bytes += estimate.nbytes

    def draw_pictures(self) -> dict[Group, dict[str, Path]]:
        """Spectrograms of the best, the median and the worst clip of each judged row.

        What was not kept is made again: of many clips only few are drawn.
        """
        judged = [row for row in self.rows if row.is_judged] or [self.rows[-1]]
        shown = [row for row in self.rows if row.sweep is None]
        pictures: dict[Group, dict[str, Path]] = {group: {} for group in self.results.groups}
        for group in tqdm(self.results.groups, "Drawing", disable=None):
            for row in judged:
                picks = list(self.results.picks(group, row.name).items())
                for pick, name in picks[: self.flags.num_pictures]:
                    file = Path("spectrograms") / picture_name(group, row.name, pick)
                    self._draw(group, name, shown, self.flags.output / file)
                    pictures[group][f"{row.name}, {pick} clip: {name}"] = file
        return pictures

    def _draw(self, group: Group, name: str, shown: Sequence[Competitor], path: Path) -> None:
        clip = next(one for one in self._of(group) if one.name == name)
        example = self.clips.example(clip, group[1])
        panels = {"truth": example.truth}
        for row in shown:
            error_db = self.results.values[group][row.name]["high_band_error_db"][name]
            kept = self._kept.get((row.name, name, group))
            estimate = row.restore(example) if kept is None else kept
            panels[f"{row.name} ({error_db:.1f} dB)"] = estimate
        title = f"{name}, {group[1] / 1000:g} kHz (in brackets: band error)"
        comparison_figure(panels, example.sample_rate, group[1], path, title)

    # --- words ----------------------------------------------------------------------------------

    def notes(self, group: Group) -> list[str]:
        """What must be known of the clips of a group."""
        clips = self._of(group)
        ends = [clip.measured_end_hz(self.clips.sample_rate) for clip in clips]
        early = [hz for hz in ends if hz is not None]
        notes = []
        if early:
            notes.append(
                f"Truths of {len(early)} of these clips stop at "
                f"{percentiles([hz / 1000 for hz in early])} kHz (10th, 50th, 90th percentile); "
                "they are measured up to there."
            )
        problems = [
            f"{clip.name}: {problem}"
            for hz, clip, problem in self.left_out
            if (clip.category, hz) == group
        ]
        if problems:
            listed = "; ".join(problems[:5])
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            total = len(clips) + len(problems)
            notes.append(f"Not measured: {len(problems)} of {total} clips ({listed}{more}).")
        return notes

    def shared_sources(self) -> list[Shared]:
        """What the clips share with the cards of the models."""
        index = self.clips.index
        files = [index.relative_path(clip.crop.position) for clip in self.clips.clips]
        models = [row for row in self.rows if isinstance(row, Model) and row.is_judged]
        return [
            shared_sources(row.name, Path(row.folder), self.flags.data, files) for row in models
        ]

    def introduction(self) -> list[str]:
        flags, clips = self.flags, self.clips.clips
        channels = "mixed down to mono" if flags.mono else "with their own channels"
        parts = [
            f"{len(clips)} clips of up to {flags.clip_seconds:g} s at {self.clips.sample_rate} Hz, "
            f"{channels}, seed {flags.seed}; low-passed by Chebyshev 1 of order 8 with zero phase; "
            f"crossover {flags.crossover}. Target roll-off: {flags.target_rolloff}. "
            "What defines this run stands in run.json, every number in clips.csv."
        ]
        parts += [str(shared) for shared in self.shared_sources()]
        if flags.degradations:
            parts.append(
                f"Also degraded by {', '.join(flags.degradations)} instead; their heading is the "
                "median of what they keep, each clip is measured above what it keeps itself."
            )
        if not any(isinstance(embedding, Aisfx) for embedding in self.embeddings):
            parts.append(f"KD aisfx is not measured: its package is missing; {Aisfx.install}")
        measured = {(clip.category, hz) for hz, clip in self.work}
        nothing = {
            clip.category + (f", {hz / 1000:g} kHz" if hz else ""): problem
            for hz, clip, problem in self.left_out
            if (clip.category, hz) not in measured
        }
        parts += [f"Nothing could be measured of {group}: {p}." for group, p in nothing.items()]
        silent = [clip.name for clip in clips if clip.end_hz == 0]
        if silent:
            parts.append(f"Silent and not measured: {len(silent)} ({', '.join(silent[:5])}).")
        if self.clips.index.unusable:
            parts.append(
                f"Files that cannot be read: {len(self.clips.index.unusable)}; see run.json."
            )
        return parts

    def record(self) -> dict[str, Any]:
        """What a stranger needs to compute every figure again."""
        cutoffs = self.flags.cutoffs
        return {
            "options": plain_options(self.flags),
            "environment": describe_environment(),
            "precision": pick_precision(self.flags.precision, pick_device(self.flags.device)),
            "lowpass": [asdict(field_lowpass(cutoff_hz)) for cutoff_hz in cutoffs],
            "metrics": {
                name: {"label": metric.label, "meaning": metric.meaning, "good": metric.good}
                for name, metric in self.metrics.items()
            },
            "lsd_definitions": {name: asdict(rule) for name, rule in LSD_DEFINITIONS.items()},
            "band_floor_dbfs": BAND_FLOOR_DBFS,
            "clips": self.clips.describe(),
            "shared_sources": {one.model: one.clips for one in self.shared_sources()},
            "not_measured": {
                f"{wanted:g}": {clip.name: p for hz, clip, p in self.left_out if hz == wanted}
                for wanted in dict.fromkeys([*cutoffs, *(hz for hz, _, _ in self.left_out)])
            },
            "unusable_files": dict(self.clips.index.unusable),
            "rows": {
                row.name: row.describe()
                | {"seconds_per_audio_second": self.seconds[row.name] / self.audio_seconds}
                for row in self.rows
            },
            "intervals": {
                "coverage": COVERAGE,
                "resamples": RESAMPLES,
                "method": "bootstrap over files, expanded percentiles, centred",
            },
            "results": self.results.table(),
            "differences": self.results.differences(),
        }


def pairs(rows: Sequence[Competitor]) -> list[tuple[str, str]]:
    """Which rows are subtracted: every system less all others (of two systems the later less the
    earlier) but ceilings and variants, and every control less its own model."""
    judged = [row.name for row in rows if row.is_judged]
    others = [row.name for row in rows if row.varies is None and not isinstance(row, Ceiling)]
    found = [
        (name, other)
        for number, name in enumerate(judged)
        for other in others
        if other not in judged[number:]
    ]
    return found + [(row.name, row.varies) for row in rows if row.varies and row.sweep is None]


def _folder(clip: Clip, cutoff_hz: float) -> str:
    return f"{cutoff_hz:g}" if clip.degradation is None else str(clip.degradation)


def _tiny_example(row: Model) -> Example:
    """A short clip of noise; restoring it finds out whether the options suit the model."""
    config = row.model.config
    audio = 0.1 * torch.randn(config.audio_channels, 64, generator=torch.Generator().manual_seed(0))
    return Example("check", audio, audio, config.sample_rate, field_lowpass(config.sample_rate / 8))


def build_metrics(flags: argparse.Namespace) -> tuple[dict[str, Metric], list[Embedding]]:
    metrics = dict(CLIP_METRICS)
    embeddings: list[Embedding] = [OfflineEmbedding()]
    if Aisfx.is_installed():
        embeddings.append(Aisfx(pick_device(flags.device)))
    if flags.visqol:
        metrics["visqol"] = visqol_metric()
    if flags.recogniser:
        metrics |= recogniser_metrics(flags.recogniser, pick_device(flags.device))
    if flags.openl3:
        embeddings.append(OpenL3(flags.openl3))
    return metrics, embeddings


def page_metrics(metrics: Mapping[str, Metric]) -> dict[str, PageMetric]:
    """The columns of the listening page."""
    return {
        name: PageMetric(metric.label, metric.good, metric.meaning)
        for name, metric in metrics.items()
        if (name in ON_PAGE or name not in CLIP_METRICS) and metric.good != "none"
    }


def role_of(row: Competitor) -> Role:
    if isinstance(row, Unprocessed):
        return "input"
    if isinstance(row, Ceiling):
        return "ceiling"
    return "system" if row.is_judged else "baseline"


def prepare_text(models: Sequence[Model], clips: Clips) -> None:
    """Embed every prompt once, before the first model needs it."""
    for model in models:
        settings = model.model.config.text
        if model.has_text and settings is not None:
            device = next(model.model.parameters()).device
            encoder = TextEncoder(settings.model, settings.max_length, settings.kind, device=device)
            encoder.fill_cache(clips.prompts())


def main(flags: argparse.Namespace) -> None:
    models = load_models(flags)
    rate = models[0].model.config.sample_rate if models else flags.sample_rate or 44100
    rows = build_rows(flags, models, rate)
    clips = Clips(
        flags.data, rate, flags.num_clips, flags.clip_seconds, seed=flags.seed, mono=flags.mono
    )
    evaluation = Evaluation(flags, clips, rows, *build_metrics(flags))
    evaluation.check()
    for shared in evaluation.shared_sources():
        print(shared)
    prepare_text(models, clips)
    evaluation.measure_all()
    sweeps = {
        option: [
            SweepPoint(model.name, value, swept(model, option, value).name)
            for model in models
            for value in values
        ]
        for option, values in flags.sweep.items()
    }
    pictures = evaluation.draw_pictures()
    results = evaluation.results
    write_csv(flags.output / "clips.csv", results)
    write_report(
        flags.output, results, evaluation.introduction(), evaluation.notes, pictures, sweeps
    )
    write_json_atomic(flags.output / "run.json", evaluation.record())
    if flags.num_listen:
        print(f"{evaluation.page.write()}: {len(evaluation.page)} clips to listen to")
    print(f"\n{summary_table(results)}\n")
    print(f"{flags.output / 'report.md'}: {len(clips.clips)} clips, {len(rows)} rows")

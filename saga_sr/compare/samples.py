"""The listening page of training runs: what each run's last validation wrote of the fixed clips.

``train_saga_sr.py`` writes ``samples/step=N/<clip>-LR.wav``, ``-prediction.wav``, ``-HR.wav`` and
``<clip>.json`` for the first of its fixed clips. Runs that validated the same clip (the same truth
and the same input) stand side by side; what only some runs have is shown with those, and said.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.listen.page import ListeningPage, PageClip, PageMetric, Version
from saga_sr.lowpass import field_lowpass
from saga_sr.support.errors import UserError
from saga_sr.training.validation import audio_metrics

METRICS = {
    "lsd": PageMetric("LSD", "low", "definition saga, up to the truth's end"),
    "lsd_hf": PageMetric("LSD-HF", "low", "the same above the cutoff"),
    "high_band_error_db": PageMetric(
        "band error (dB)",
        "low",
        "mean absolute level difference of third octaves above the cutoff, frame by frame",
    ),
    "si_sdr": PageMetric("SI-SDR (dB)", "high", "against the truth, full band"),
}
INPUT, TRUTH = "input", "truth"
SAME = 1e-3  # truths and inputs of two runs may differ by so much of full scale: another processor
_STEP = re.compile(r"step=(\d+)")


@dataclass(frozen=True)
class Sample:
    """A fixed clip as one run heard it last: audio [C, T] and what is known of it."""

    stem: str
    hr: Tensor
    lr: Tensor
    prediction: Tensor
    sample_rate: int
    known: Mapping[str, Any]


@dataclass
class SharedClip:
    """The predictions of all runs that validated one clip."""

    sample: Sample
    predictions: dict[str, Tensor] = field(default_factory=dict)

    def fits(self, other: Sample) -> bool:
        ours, rate = self.sample, other.sample_rate
        return (
            (ours.stem, ours.sample_rate) == (other.stem, rate)
            and ours.hr.shape == other.hr.shape
            and bool((ours.hr - other.hr).abs().max() < SAME)
            and bool((ours.lr - other.lr).abs().max() < SAME)
        )


def newest_samples(run: Path) -> tuple[int, Path] | None:
    """(step, folder) of the last validation that wrote samples; None where there is none."""
    found = [(int(m[1]), path) for path in run.glob("samples/*") if (m := _match(path))]
    return max(found, default=None)


def _match(path: Path) -> re.Match[str] | None:
    return _STEP.fullmatch(path.name) if path.is_dir() else None


def read_samples(folder: Path, default_cutoff_hz: float) -> Iterator[Sample]:
    """The clips of one validation.

    Args:
        folder: ``samples/step=N`` of a run.
        default_cutoff_hz: where a clip's JSON does not say it (runs of an earlier version).

    Raises:
        UserError: a file of a clip is missing or broken.
    """
    for path in sorted(folder.glob("*-prediction.wav")):
        stem = path.name.removesuffix("-prediction.wav")
        audio, rates = {}, set()
        for label in ("HR", "LR", "prediction"):
            audio[label], rate = _read(folder / f"{stem}-{label}.wav")
            rates.add(rate)
        if len({one.shape for one in audio.values()} | rates) != 2:  # one shape and one rate
            raise UserError(f"{folder}: the files of {stem} differ in length, channels or rate")
        known = {"cutoff_hz": default_cutoff_hz} | _read_known(folder / f"{stem}.json")
        yield Sample(stem, audio["HR"], audio["LR"], audio["prediction"], rate, known)


def _read(path: Path) -> tuple[Tensor, int]:
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return torch.from_numpy(samples.T.copy()), rate


def _read_known(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a JSON object ({error})") from error


def add_runs(page: ListeningPage, runs: Sequence[tuple[str, Path, float]]) -> list[str]:
    """Put the newest samples of runs on a page.

    Args:
        page: gets a clip for each distinct truth and input.
        runs: (name, folder, ``--val_cutoff_hz``) of each.

    Returns:
        What a listener must know: runs without samples, different steps, clips not shared.
    """
    clips: list[SharedClip] = []
    steps, notes = {}, []
    for name, folder, cutoff_hz in runs:
        newest = newest_samples(folder)
        if newest is None:
            notes.append(f"{name}: no samples of a validation in {folder / 'samples'}")
            continue
        steps[name] = newest[0]
        for sample in read_samples(newest[1], cutoff_hz):
            shared = next((one for one in clips if one.fits(sample)), None)
            if shared is None:
                clips.append(shared := SharedClip(sample))
            shared.predictions[name] = sample.prediction
    if len(set(steps.values())) > 1:
        notes.append("Steps: " + ", ".join(f"{name} {step}" for name, step in steps.items()))
    alone = [clip for clip in clips if len(clip.predictions) < len(steps)]
    if alone:
        notes.append(
            f"{len(alone)} of {len(clips)} clips were not validated by every run (other files, "
            "another cutoff or another length): they cannot decide between the runs."
        )
    for clip in clips:
        add_clip(page, clip)
    return notes


def add_clip(page: ListeningPage, shared: SharedClip) -> None:
    one = shared.sample
    known, rate = one.known, one.sample_rate
    lowpass = field_lowpass(float(known["cutoff_hz"]))
    end_hz = torch.tensor([spectrum_end_hz(one.hr, rate)])
    cutoff_hz = torch.tensor([lowpass.cutoff_hz])

    def measured(audio: Tensor) -> dict[str, float]:
        values = audio_metrics(audio[None], one.hr[None], cutoff_hz, end_hz, rate)
        return {name: float(value) for name, value in values.items()}

    clip = PageClip(
        name=f"{known['name']} ({one.stem})" if "name" in known else one.stem,
        category=str(known.get("category", one.stem.rsplit("-", 1)[0])),
        sample_rate=rate,
        lowpass=lowpass,
        text=str(known.get("text", "")),
    )
    versions = [
        Version(INPUT, "input", one.lr, measured(one.lr)),
        *(
            Version(name, "system", audio, measured(audio))
            for name, audio in shared.predictions.items()
        ),
        Version(TRUTH, "truth", one.hr),
    ]
    page.add(clip, versions)

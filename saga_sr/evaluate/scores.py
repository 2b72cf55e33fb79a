"""What is measured of a restored clip, and of a set of them.

`CLIP_METRICS` names every number of a clip: what it is, in which unit, and which direction is good.
A metric that cannot be computed is NaN for that clip and left out of means, with the count said.
What is measured of sets of clips is `saga_sr.evaluate.sets`; ViSQOL and a speech recogniser are
extras, imported where they are asked for.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jiwer
import numpy as np
import soxr
import torch
from torch import Tensor

from saga_sr import metrics
from saga_sr.evaluate.example import Example
from saga_sr.lowfreq import crossover_transition_hz
from saga_sr.metrics import LOSS_TIMES, LSD_DEFINITIONS, MIDDLE_TIMES
from saga_sr.support.errors import UserError
from saga_sr.support.extras import optional
from saga_sr.text import tidy_text

Good = Literal["low", "high", "zero", "none"]
NAN = float("nan")


@dataclass(frozen=True)
class Measured:
    """A restored clip beside its example; what a metric looks at.

    Attributes:
        estimate: [C, T].
        example: truth, input and low-pass.
        end_hz: where the truth ends; None is Nyquist.
        unchanged: [C, T], what the same model made where nothing was changed (`Model.varies`).
        velocity_errors: of a model (`saga_sr.evaluate.velocity`).
    """

    estimate: Tensor
    example: Example
    end_hz: float | None
    unchanged: Tensor | None = None
    velocity_errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        return self.estimate[None], self.example.truth[None]


@dataclass(frozen=True)
class Metric:
    """One column.

    Attributes:
        label: in tables, with its unit.
        meaning: one sentence.
        good: which direction is better; ``zero`` metrics are averaged as magnitudes.
        compute: the number; None where a row has no such thing, NaN where a clip has none.
        is_tabled: whether the tables show it; clips.csv and run.json have all.
    """

    label: str
    meaning: str
    good: Good
    compute: Callable[[Measured], float | None]
    is_tabled: bool = True


def _lsd(one: Measured, definition: str = "saga", band: str = "full") -> float:
    cutoff_hz = one.example.lowpass.cutoff_hz
    low_hz = cutoff_hz if band == "high" else None
    high_hz = cutoff_hz if band == "low" else one.end_hz
    rate = one.example.sample_rate
    return metrics.lsd(*one.pair, definition, rate, low_hz, high_hz).item()


def _level_in_silence(one: Measured) -> float:
    example = one.example
    band_hz = example.lowpass.cutoff_hz, one.end_hz
    return metrics.level_in_silence_db(*one.pair, example.sample_rate, *band_hz).item()


def _high_band_error(one: Measured) -> float:
    example = one.example
    return metrics.high_band_error_db(
        *one.pair, example.lowpass.cutoff_hz, example.sample_rate, one.end_hz
    ).item()


def _texture(one: Measured) -> float:
    example = one.example
    cutoff_hz = example.lowpass.cutoff_hz
    return metrics.texture_db(*one.pair, cutoff_hz, example.sample_rate, one.end_hz).item()


def _seam_step(one: Measured) -> float:
    example = one.example
    return metrics.seam_step_db(*one.pair, example.lowpass.cutoff_hz, example.sample_rate).item()


def _velocity_error(one: Measured, name: str) -> float | None:
    return one.velocity_errors.get(name)


def _change(one: Measured) -> float | None:
    if one.unchanged is None:
        return None
    unchanged = replace(one.example, truth=one.unchanged)
    return _high_band_error(replace(one, example=unchanged, end_hz=None))


def _low_band_si_sdr(one: Measured) -> float:
    example = one.example
    crossover_hz = torch.tensor(example.passband_hz)
    kept_hz = float(crossover_hz - crossover_transition_hz(crossover_hz))
    return metrics.si_sdr(
        one.estimate[None], example.lr_audio[None], example.sample_rate, high_hz=kept_hz
    ).item()


CLIP_METRICS: dict[str, Metric] = {
    "lsd": Metric("LSD", "definition saga, up to the truth's end", "low", _lsd),
    "lsd_hf": Metric("LSD-HF", "the same above the cutoff", "low", partial(_lsd, band="high")),
    "lsd_lf": Metric("LSD-LF", "the same below the cutoff", "low", partial(_lsd, band="low")),
    "level_in_silence_db": Metric(
        "in silence (dBFS)",
        "level above the cutoff in the frames where the truth has nothing there, which LSD-HF "
        "leaves out",
        "low",
        _level_in_silence,
    ),
    "high_band_error_db": Metric(
        "band error (dB)",
        "mean absolute level difference of third octaves above the cutoff, frame by frame",
        "low",
        _high_band_error,
    ),
    "texture_db": Metric(
        "texture (dB)",
        "how differently the level above the cutoff changes from bin to bin, in time and in "
        "frequency; compare with the truth's own halves, below the table",
        "low",
        _texture,
    ),
    "seam_step_db": Metric(
        "seam (dB)",
        "level step at the cutoff, less the truth's; mean magnitude",
        "zero",
        _seam_step,
    ),
    "si_sdr": Metric(
        "SI-SDR (dB)",
        "against the truth, full band, mean not removed; the silent low-pass wins",
        "high",
        lambda one: metrics.si_sdr(*one.pair).item(),
    ),
    "si_sdr_low": Metric(
        "SI-SDR low (dB)",
        "against the input, below the soft crossover",
        "high",
        _low_band_si_sdr,
    ),
    "mrstft": Metric(
        "MR-STFT",
        "multi-resolution STFT distance (auraloss' defaults), full band",
        "low",
        lambda one: metrics.multi_resolution_stft(*one.pair).item(),
    ),
    "velocity_error": Metric(
        "velocity error",
        "squared error of a model's velocity where the band is missing, divided by that of a "
        f"network that answers zero; mean of t = {' and '.join(f'{t:g}' for t in MIDDLE_TIMES)}",
        "low",
        partial(_velocity_error, name="velocity_error"),
    ),
    "change_db": Metric(
        "change (dB)",
        "of a control or a point of a sweep: band error against what the same model made "
        "unchanged; 0: what was changed is ignored",
        "none",
        _change,
    ),
    **{
        f"velocity_error_t{t:g}": Metric(
            f"velocity error, t = {t:g}",
            "the same at one time",
            "low",
            partial(_velocity_error, name=f"velocity_error_t{t:g}"),
            is_tabled=False,
        )
        for t in LOSS_TIMES
    },
    **{
        f"lsd_{name}": Metric(
            f"LSD {name}",
            rule.source + ", up to the truth's end",
            "low",
            partial(_lsd, definition=name),
        )
        for name, rule in LSD_DEFINITIONS.items()
        if name != "saga"
    },
}


def mean(values: Sequence[float], metric: Metric) -> tuple[float, int]:
    """(mean, how many count): clips without a value left out, ``zero`` metrics as magnitudes."""
    present = [abs(v) if metric.good == "zero" else v for v in values if not math.isnan(v)]
    return (sum(present) / len(present), len(present)) if present else (NAN, 0)


# ---------------------------------------------------------------------------------------------
# Extras
def visqol_metric() -> Metric:
    """ViSQOL in audio mode: a predicted listening score from 1 to 4.75, on mono at 48 kHz.

    NaN for clips shorter than its smallest patch (about 0.5 s) and for silent estimates.

    Raises:
        UserError: the package is not installed.
    """
    package = optional("visqol", "--visqol", "pip install visqol-python libsvm-official")
    judge = package.VisqolApi()
    try:
        judge.create(mode="audio")
    except ImportError as error:
        raise UserError(f"--visqol: {error}") from error

    def compute(one: Measured) -> float:
        rate = one.example.sample_rate
        mono = [audio.mean(dim=0).double().numpy() for audio in (one.example.truth, one.estimate)]
        truth, estimate = (soxr.resample(samples, rate, 48000) for samples in mono)
        if not estimate.any():
            return NAN
        try:
            return float(judge.measure_from_arrays(truth, estimate, 48000).moslqo)
        except ValueError:  # shorter than a patch
            return NAN

    return Metric("ViSQOL", "predicted listening score, audio mode, 1 to 4.75", "high", compute)


def error_rate(heard: str, said: str, characters: bool = False) -> float:
    """WER, or CER where ``characters`` count; NaN where nothing was said."""
    if not said:
        return NAN
    return float(jiwer.cer(said, heard) if characters else jiwer.wer(said, heard))


def recogniser_metrics(model: str, device: torch.device) -> dict[str, Metric]:
    """WER and CER by a speech recogniser; what was said is the transcript, else the truth as heard.

    Case and punctuation do not count. NaN where nothing was said.

    Args:
        model: folder or hub id of a recogniser that transformers' pipeline loads.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import pipeline

    try:
        listen: Any = pipeline("automatic-speech-recognition", model=model, device=device)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--recogniser {model}: it cannot be loaded ({reason})") from error
    heard: dict[bytes, str] = {}  # WER and CER ask for the same clips, and every row for the truth

    def transcribe(audio: Tensor, rate: int) -> str:
        samples = soxr.resample(audio.mean(dim=0).numpy(), rate, 16000).astype(np.float32)
        key = hashlib.sha256(samples.tobytes()).digest()
        if key not in heard:
            heard[key] = _spoken(listen({"raw": samples, "sampling_rate": 16000})["text"])
        return heard[key]

    def rate_of(one: Measured, characters: bool) -> float:
        rate = one.example.sample_rate
        said = _spoken(one.example.transcript) or transcribe(one.example.truth, rate)
        return error_rate(transcribe(one.estimate, rate), said, characters)

    origin = f"by {Path(model).name}; 0 is perfect, more than 1 is possible"
    return {
        "wer": Metric("WER", f"word errors {origin}", "low", partial(rate_of, characters=False)),
        "cer": Metric(
            "CER", f"character errors {origin}", "low", partial(rate_of, characters=True)
        ),
    }


def _spoken(text: str) -> str:
    """Letters, digits and single spaces, in lower case."""
    kept = "".join(c if c.isalnum() or c.isspace() else " " for c in text.casefold())
    return tidy_text(kept)

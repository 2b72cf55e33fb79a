"""What the page says, and what its controls mean: plain values, no Gradio, no audio.

Numbers become short text here, a clip and its result become the value that `static/stage.js` shows,
a model's config becomes the ranges of the sliders, and the sliders become `UpsampleOptions`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from saga_sr.app.audio import Clip, Restored
from saga_sr.app.visits import WAITING
from saga_sr.config import ModelConfig
from saga_sr.rolloff import unit_to_hz
from saga_sr.support.errors import UserError
from saga_sr.upsample.options import UpsampleOptions

_BRIGHT = 0.7  # where the slider stands while brightness is left to the recording
_BYTES_PER_SECOND = 2 * 4 * 96_000  # of the largest files that people have: float, stereo, 96 kHz


# ---------------------------------------------------------------------------- what is shown
def clip_facts(clip: Clip) -> str:
    """One line on a file, such as ``0:12, stereo, sampled at 16 kHz``."""
    source = clip.source
    channels = {1: "mono", 2: "stereo"}[source.channels]
    return f"{clock(clip.duration_s)}, {channels}, sampled at {source.sample_rate / 1000:g} kHz"


def clip_verdict(clip: Clip) -> str:
    """One sentence on a file's band."""
    band = clip.bandwidth
    if band.is_silent:
        return "This file is silent, and will stay silent."
    if band.is_full:
        return (
            f"This file already reaches {khz(band.end_hz)}: there is nothing to add, "
            "it will pass through."
        )
    return f"The sound ends at {khz(band.end_hz)}."


def result_verdict(result: Restored) -> str:
    """One sentence on a result."""
    if result.passed_through:
        return "Passed through unchanged."
    line = f"Restored in {seconds_text(result.seconds)}."
    if result.written.over:
        over_db = 20 * math.log10(result.written.peak)
        line += f" Peaks go {over_db:.1f} dB over full scale; the float WAV keeps them."
    return line


def khz(hz: float) -> str:
    return f"{hz / 1000:.1f} kHz"


def clock(seconds: float) -> str:
    """``m:ss``; below a minute with tenths."""
    if seconds < 59.95:
        return f"0:{seconds:04.1f}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def seconds_text(seconds: float) -> str:
    """``4.2 s``, ``38 s``, ``3.5 min``, ``15 min``."""
    number, unit = (seconds, "s") if seconds < 90 else (seconds / 60, "min")
    return f"{number:.{int(number < 10)}f} {unit}".replace(".0 ", " ")


def stage_value(clip: Clip, result: Restored | None = None) -> dict[str, Any]:
    """What the page's stage (static/stage.js) shows of a clip and its result."""
    cutoff_hz = clip.bandwidth.end_hz
    value: dict[str, Any] = {
        "name": clip.source.name,
        "facts": clip_facts(clip),
        "duration_s": clip.duration_s,
        "nyquist_hz": clip.bandwidth.nyquist_hz,
        "cutoff_hz": cutoff_hz if 0 < cutoff_hz < 0.99 * clip.bandwidth.nyquist_hz else None,
        "channels": clip.source.channels,
        "input": {"picture": _url(clip.picture), "gain": 1.0},
        "audio": _url(clip.preview),
    }
    if result is not None:
        value["input"]["gain"], gain = result.gains
        value["output"] = {"picture": _url(result.picture), "gain": gain}
        value["audio"] = _url(result.preview)
        value["download"] = {
            "url": _url(result.audio),
            "name": result.audio.name,
            "megabytes": round(result.audio.stat().st_size / 1e6, 1),
        }
    return value


def _url(path: Path) -> str:
    """Where the page gets a file below the studio's root; relative, for proxies' sake."""
    return f"gradio_api/file={quote(str(path))}"


def status_value(kind: str, text: str, fraction: float | None = None) -> dict[str, Any]:
    """One line below the button: ``kind`` is idle, busy, done or error."""
    return {"kind": kind, "text": text, "fraction": fraction}


def busy_text(verb: str, fraction: float, seconds: float) -> str:
    """``verb``, and how long it will take once that can be said."""
    if fraction == WAITING:
        return "Waiting for another restoration to end"
    if seconds < 4 or fraction < 0.02:
        return verb
    return f"{verb}, {seconds_text(max(seconds / fraction - seconds, 1))} left"


def max_upload_bytes(max_duration_s: float) -> int:
    """More than any file of that duration that the page accepts is likely to have."""
    return int(max_duration_s * _BYTES_PER_SECOND) + (1 << 20)


def upload_limit(max_duration_s: float) -> dict[str, Any]:
    """What the drop zone (static/drop.js) knows about what is too large."""
    return {
        "bytes": max_upload_bytes(max_duration_s),
        "duration_s": max_duration_s,
        "duration": seconds_text(max_duration_s),
    }


def model_labels(models: Sequence[str]) -> dict[str, str]:
    """A short, unique label for each model: the last parts of its path."""
    for count in range(1, max(len(Path(model).parts) for model in models) + 1):
        labels = ["/".join(Path(model).parts[-count:]) for model in models]
        if len(set(labels)) == len(labels):
            return dict(zip(labels, models, strict=True))
    raise UserError(f"--model: the same model is given twice ({', '.join(models)})")


# ---------------------------------------------------------------------------- controls
def options_from(
    config: ModelConfig,
    automatic: bool,
    rolloff_hz: float,
    prompt: str,
    num_steps: float,
    guidance_acoustic: float,
    guidance_text: float,
    seed: float | None,
) -> UpsampleOptions:
    """The controls as options; those that ``config``'s model does not have are left out."""
    if seed is None or seed < 0 or seed != int(seed):
        raise UserError("The seed is a whole number from 0 on.")
    stage = config.stage
    return UpsampleOptions(
        target_rolloff_hz=rolloff_hz if stage.rolloff and not automatic else None,
        prompt=prompt if stage.text else "",
        num_steps=int(num_steps),
        guidance_acoustic=guidance_acoustic if can_guide(config) else None,
        guidance_text=guidance_text if stage.text else None,
        seed=int(seed),
    )


def can_guide(config: ModelConfig) -> bool:
    """Whether training dropped the conditions that acoustic guidance does without."""
    dropout = config.training.dropout
    return dropout.both_prob > 0 or (dropout.lr_prob > 0 and not config.stage.text)


def control_settings(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """Value, range and visibility of each control, from a model's ``sampling`` block."""
    sampling, stage = config.sampling, config.stage
    highest_hz = (config.sample_rate / 2 - 1) // 100 * 100
    automatic = sampling.target_rolloff is None
    unit = _BRIGHT if sampling.target_rolloff is None else sampling.target_rolloff
    default_hz = unit_to_hz(unit, config.sample_rate).item()
    rolloff_hz = min(round(default_hz / 100) * 100, highest_hz)
    return {
        "automatic": {"value": automatic, "visible": stage.rolloff and automatic},
        "rolloff_hz": _slider(rolloff_hz, 1000, highest_hz, 100)
        | {"visible": stage.rolloff, "interactive": not automatic},
        "prompt": {"visible": stage.text},
        "num_steps": _slider(sampling.num_steps, 1, 100, 1),
        "guidance_acoustic": _slider(sampling.guidance_acoustic, 1, 3, 0.1)
        | {"visible": can_guide(config)},
        "guidance_text": _slider(sampling.guidance_text, 1, 3, 0.1) | {"visible": stage.text},
    }


def _slider(value: float, low: float, high: float, step: float) -> dict[str, Any]:
    """A slider whose range holds ``value``."""
    return {"value": value, "minimum": min(low, value), "maximum": max(high, value), "step": step}

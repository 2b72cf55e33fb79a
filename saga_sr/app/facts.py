"""What the page says, and what its controls mean: plain values, no Gradio, no audio.

Numbers become short messages here (`words` says them in a language), a clip and its result become
the value that `static/stage.js` shows, and a model's config becomes the ranges of the sliders.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from saga_sr.app.audio import WAITING, Clip, Restored, colour_scale
from saga_sr.app.uploads import max_upload_bytes
from saga_sr.app.words import LANGUAGES, Message, PageError, message
from saga_sr.audio.spectrogram import RANGE_DB
from saga_sr.config import ModelConfig
from saga_sr.rolloff import unit_to_hz
from saga_sr.support.errors import UserError

MENDED = {  # what is said of each kind of `saga_sr.audio.repair.NOTES`
    "cut_off": "mended_cut_off",
    "never_finished": "mended_never_finished",
    "no_length": "mended_no_length",
    "wrong_length": "mended_wrong_length",
    "joined": "mended_joined",
    "chained": "mended_chained",
    "begins_damaged": "mended_begins_damaged",
    "ends_damaged": "mended_ends_damaged",
}


# ---------------------------------------------------------------------------- what is shown
def clip_facts(clip: Clip) -> Message:
    """One line on a file, such as ``0:12, stereo, sampled at 16 kHz``."""
    return message(
        "clip_facts",
        clock=clock(clip.duration_s),
        channels=message({1: "mono", 2: "stereo"}[clip.source.channels]),
        khz=f"{clip.source.sample_rate / 1000:g}",
    )


def clip_verdict(clip: Clip) -> Message:
    """One sentence on a file's band, and one on each thing that was mended in the file."""
    band = clip.bandwidth
    if band.is_silent:
        verdict = message("is_silent")
    else:
        verdict = message("is_full" if band.is_full else "sound_ends", khz=khz(band.end_hz))
    for note in clip.source.notes:
        mended = message(MENDED[note.kind], **note.values)
        verdict = message("and_mended", verdict=verdict, mended=mended)
    return verdict


def result_verdict(result: Restored) -> Message:
    """One sentence on a result; peaks over full scale are named where they reach 0.1 dB."""
    if result.passed_through:
        return message("passed_through")
    duration = seconds_text(result.seconds)
    over_db = f"{20 * math.log10(max(result.written.peak, 1.0)):.1f}"
    if over_db == "0.0":
        return message("restored_in", duration=duration)
    return message("restored_over", duration=duration, over_db=over_db)


def khz(hz: float) -> str:
    return f"{hz / 1000:.1f} kHz"


def clock(seconds: float) -> str:
    """``m:ss``; below a minute with tenths."""
    if seconds < 59.95:
        return f"0:{seconds:04.1f}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def seconds_text(seconds: float) -> Message:
    """``4.2 s``, ``38 s``, ``3.5 min``, ``15 min``."""
    number, unit = (seconds, "seconds") if seconds < 90 else (seconds / 60, "minutes")
    return message(unit, number=f"{number:.{int(number < 10)}f}".removesuffix(".0"))


def stage_value(clip: Clip, result: Restored | None = None, language: str = "en") -> dict[str, Any]:
    """What the page's stage (static/stage.js) shows of a clip and its result."""
    cutoff_hz = clip.bandwidth.end_hz
    value: dict[str, Any] = {
        "name": clip.source.name,
        "facts": clip_facts(clip).text(language),
        "duration_s": clip.duration_s,
        "nyquist_hz": clip.bandwidth.nyquist_hz,
        "cutoff_hz": cutoff_hz if 0 < cutoff_hz < 0.99 * clip.bandwidth.nyquist_hz else None,
        "channels": clip.source.channels,
        "scale": {"top_db": clip.top_db, "range_db": RANGE_DB, "colours": colour_scale()},
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


def status_value(
    kind: str,
    text: Message | str = "",
    language: str = "en",
    fraction: float | None = None,
) -> dict[str, Any]:
    """One line below the button: ``kind`` is idle, busy, done or error."""
    words = text.text(language) if isinstance(text, Message) else text
    return {"kind": kind, "text": words, "fraction": fraction}


def busy_text(verb: str, fraction: float, seconds: float) -> Message:
    """``verb``, and how long it will take once that can be said."""
    if fraction == WAITING:
        return message("waiting")
    if seconds < 4 or fraction < 0.02:
        return message(verb)
    left = seconds_text(max(seconds / fraction - seconds, 1))
    return message("time_left", verb=message(verb), duration=left)


def error_text(error: Exception) -> Message | str:
    """What a visitor is told about an error: never a path of the server."""
    if isinstance(error, PageError):
        return error.message
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return message("failed_disk", reason=error.strerror)
    return message("failed", reason=type(error).__name__)


def upload_limit(max_duration_s: float) -> dict[str, Any]:
    """What the drop zone (static/drop.js) knows about what is too large."""
    duration = seconds_text(max_duration_s)
    return {
        "bytes": max_upload_bytes(max_duration_s),
        "duration_s": max_duration_s,
        "duration": {language: duration.text(language) for language in LANGUAGES},
    }


def model_labels(models: Sequence[str]) -> dict[str, str]:
    """A short, unique label for each model: the last parts of its path."""
    for count in range(1, max(len(Path(model).parts) for model in models) + 1):
        labels = ["/".join(Path(model).parts[-count:]) for model in models]
        if len(set(labels)) == len(labels):
            return dict(zip(labels, models, strict=True))
    raise UserError(f"--model: the same model is given twice ({', '.join(models)})")


# ---------------------------------------------------------------------------- controls
def can_guide(config: ModelConfig) -> bool:
    """Whether training dropped the conditions that acoustic guidance does without; a student has
    learnt its teacher's guidance."""
    dropout = config.training.dropout
    if config.model.diffusion.student_steps:
        return False
    return dropout.both_prob > 0 or (dropout.lr_prob > 0 and not config.stage.text)


def can_guide_by_text(config: ModelConfig) -> bool:
    return config.stage.text and not config.model.diffusion.student_steps


def control_settings(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """Value, range and visibility of each control, from a model's ``sampling`` block."""
    sampling, stage = config.sampling, config.stage
    highest_hz = (config.sample_rate / 2 - 1) // 100 * 100
    default_hz = unit_to_hz(sampling.target_rolloff, config.sample_rate).item()
    rolloff_hz = min(round(default_hz / 100) * 100, highest_hz)
    return {
        "rolloff_hz": _slider(rolloff_hz, 1000, highest_hz, 100) | {"visible": stage.rolloff},
        "prompt": {"visible": stage.text},
        "num_steps": _slider(sampling.num_steps, 1, 100, 1),
        "guidance_acoustic": _slider(sampling.guidance_acoustic, 1, 3, 0.1)
        | {"visible": can_guide(config)},
        "guidance_text": _slider(sampling.guidance_text, 1, 3, 0.1)
        | {"visible": can_guide_by_text(config)},
    }


def _slider(value: float, low: float, high: float, step: float) -> dict[str, Any]:
    """A slider whose range holds ``value``."""
    return {"value": value, "minimum": min(low, value), "maximum": max(high, value), "step": step}

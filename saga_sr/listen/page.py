"""The listening page: every version of a clip at the same position, by ear and by eye.

    DIR/listen.html          opens from disk in any browser; nothing is fetched
    DIR/listen/0001-x.js     a clip: its audio and its spectrograms, read when it is chosen
    DIR/listen/0001-x/*.flac the same audio, for any other program

A browser lets a page from disk run a script beside it, but not read a sound file into a buffer, and
only buffers start, switch and loop on the sample. Hence audio in base64 inside scripts.

Nobody can judge a band while the loudness differs. All versions of a clip are therefore played with
the level that the input has in the band that it keeps, and the page says by how much each was
changed. The files keep their level (all versions of a clip are lowered by one gain where one of
them is over full scale, which is said too).
"""

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from saga_sr.audio.spectrogram import RANGE_DB, spectrogram_db
from saga_sr.degradation import Kept
from saga_sr.lowfreq import crossover_transition_hz
from saga_sr.lowpass import Lowpass, apply_lowpass, field_lowpass
from saga_sr.rolloff import spectral_rolloff
from saga_sr.support.files import atomic_path, write_text_atomic

Role = Literal["input", "system", "baseline", "ceiling", "truth", "anchor"]
Good = Literal["low", "high", "zero"]

PAGE = "listen.html"
FOLDER = "listen"
STATIC = Path(__file__).parent / "static"
SCRIPTS = ("words.js", "player.js", "blind.js", "charts.js", "view.js")
ANCHOR = "anchor"
ANCHOR_HZ = 3500.0  # the low anchor of ITU-R BS.1534-3
QUIET = 0.03  # of full scale: below, 16 bits are too few for what lies 60 dB under the peak
PICTURE_ROWS, PICTURE_COLUMNS = 342, 720
COLOURS = 96  # about a decibel each
MAX_CURVE_POINTS = 400
_DATA = re.compile(r'<script type="application/json" id="page">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True)
class PageMetric:
    """A number beside every version.

    Attributes:
        label: with its unit.
        good: which direction is better; ``zero`` is a magnitude.
        meaning: one sentence.
    """

    label: str
    good: Good
    meaning: str = ""


@dataclass(frozen=True)
class Version:
    """One version of a clip.

    Attributes:
        name: the system's, the same in all clips.
        role: what it is in a test.
        audio: [C, T].
        metrics: name -> value; NaN or absent where there is none.
    """

    name: str
    role: Role
    audio: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PageClip:
    """What is known of a clip.

    Attributes:
        name: unique together with the cutoff.
        category: to filter by and to average over.
        sample_rate: of all versions, in Hz.
        lowpass: what made the input of the truth.
        text: prompt or transcript, "" for none.
    """

    name: str
    category: str
    sample_rate: int
    lowpass: Lowpass | Kept
    text: str = ""

    @property
    def kept_hz(self) -> float:
        """Up to where every system keeps the input: the lower end of the soft crossover."""
        end_hz = torch.tensor(self.lowpass.passband_hz(self.sample_rate))
        return float(end_hz - crossover_transition_hz(end_hz))


@dataclass(frozen=True)
class Curve:
    """One line of a chart: values [N] over steps [N]."""

    metric: str
    run: str
    steps: np.ndarray
    values: np.ndarray
    is_common: bool = False


class ListeningPage:
    """Writes a page clip by clip, so that only one clip's audio is in memory.

    Args:
        folder: gets `PAGE` and `FOLDER`; files of a page that was there before are removed when
            the new one is complete.
        title: what is compared.
        metrics: the numbers beside each version, in the order of their columns.
    """

    def __init__(self, folder: Path, title: str, metrics: Mapping[str, PageMetric]) -> None:
        self.folder, self.title, self.metrics = Path(folder), title, dict(metrics)
        self._clips: list[dict[str, Any]] = []
        self._systems: dict[str, Role] = {}
        self._files: list[str] = []
        self._hash = hashlib.sha256()

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, clip: PageClip, versions: Sequence[Version]) -> None:
        """Write one clip: exactly one version is the truth and one the input; an anchor is added.

        Raises:
            ValueError: the versions differ in shape, share a name, or lack truth or input.
        """
        _check(versions)
        truth = next(one for one in versions if one.role == "truth")
        versions = [*versions, Version(ANCHOR, "anchor", anchor(truth.audio, clip))]
        lr_audio = next(one for one in versions if one.role == "input").audio
        for one in versions:
            if self._systems.setdefault(one.name, one.role) != one.role:
                raise ValueError(f"{one.name} is {one.role} here and was something else before")
        levels = Levels.of(clip, lr_audio, [one.audio for one in versions])
        stem = f"{len(self._clips) + 1:04d}-{_slug(clip.name)}-{clip.lowpass.cutoff_hz:g}"
        pictures = draw([one.audio for one in versions])
        described, payload = [], []
        for number, (one, picture) in enumerate(zip(versions, pictures, strict=True)):
            flac = _flac(one.audio * levels.scale, clip.sample_rate, levels.bits)
            name = f"{FOLDER}/{stem}/{number:02d}-{_slug(one.name)}.flac"
            self._write(name, flac)
            payload.append({"audio": _base64(flac), "picture": _base64(picture)})
            described.append(
                {
                    "name": one.name,
                    "file": name,
                    "offset_db": round(levels.offsets_db[number], 2),
                    "gain_db": round(levels.gains_db[number], 2),
                    "metrics": {k: _finite(one.metrics.get(k)) for k in self.metrics},
                }
            )
        script = f"{FOLDER}/{stem}.js"
        call = f"sagaListen.arrived({json.dumps(stem)}, {json.dumps(payload)});\n"
        self._write(script, call.encode())
        self._clips.append(
            {
                "id": stem,
                "script": script,
                "name": clip.name,
                "category": clip.category,
                "text": clip.text,
                "cutoff_hz": clip.lowpass.cutoff_hz,
                "kept_hz": round(clip.kept_hz),
                "rolloff_low_hz": round(_rolloff_hz(lr_audio, clip.sample_rate)),
                "rolloff_high_hz": round(_rolloff_hz(truth.audio, clip.sample_rate)),
                "sample_rate": clip.sample_rate,
                "num_samples": truth.audio.shape[-1],
                "lowered_db": round(-20 * math.log10(levels.scale), 2),
                "loudest_db": round(max(float(spectrogram_db(v.audio).max()) for v in versions), 1),
                "versions": described,
            }
        )

    def write(self, curves: Sequence[Curve] = (), notes: Sequence[str] = ()) -> Path:
        """Write the page itself and remove what only its predecessor used.

        Args:
            curves: lines of the charts; a chart per metric.
            notes: what must be known before anything is compared, a paragraph each.
        """
        path = self.folder / PAGE
        before = _files_of(path)
        page = {
            "id": self._hash.hexdigest()[:12],
            "title": self.title,
            "systems": [{"name": name, "role": role} for name, role in self._systems.items()],
            "metrics": {name: vars(metric) for name, metric in self.metrics.items()},
            "clips": self._clips,
            "charts": _charts(curves),
            "notes": [note for note in notes if note],
            "range_db": RANGE_DB,
            "colours": _palette_css(),
            "files": self._files,
        }
        write_text_atomic(path, _html(page))
        for name in before - set(self._files):
            self._remove(name)
        return path

    def _write(self, name: str, content: bytes) -> None:
        with atomic_path(self.folder / name) as temporary:
            temporary.write_bytes(content)
        self._files.append(name)
        if name.endswith(".flac"):
            self._hash.update(name.encode() + hashlib.sha256(content).digest())

    def _remove(self, name: str) -> None:
        path = (self.folder / name).resolve()
        below = (self.folder / FOLDER).resolve()
        if below in path.parents:
            path.unlink(missing_ok=True)
            if path.parent != below and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()


def anchor(truth: Tensor, clip: PageClip) -> Tensor:
    """The low anchor of BS.1534: the truth [C, T] low-passed at 3.5 kHz, or at the clip's own
    cutoff where that is lower."""
    cutoff_hz = min(ANCHOR_HZ, clip.lowpass.cutoff_hz)
    return apply_lowpass(truth, clip.sample_rate, field_lowpass(cutoff_hz))


@dataclass(frozen=True)
class Levels:
    """How loud the versions of a clip are stored and played.

    Attributes:
        offsets_db: level of each version in the kept band, relative to the input's.
        gains_db: to play each with: its offset undone, all lowered where one would clip.
        scale: factor of all stored samples; below 1 where one version is over full scale.
        bits: of the stored samples.
    """

    offsets_db: list[float]
    gains_db: list[float]
    scale: float
    bits: Literal[16, 24]

    @classmethod
    def of(cls, clip: PageClip, lr_audio: Tensor, versions: Sequence[Tensor]) -> "Levels":
        kept = [_power_below(audio, clip.kept_hz, clip.sample_rate) for audio in versions]
        reference = _power_below(lr_audio, clip.kept_hz, clip.sample_rate)
        offsets = [10 * math.log10(p / reference) if p and reference else 0.0 for p in kept]
        peaks = [float(audio.abs().max()) for audio in versions]
        full = 1 - 2.0**-15
        scale = min(1.0, full / max(*peaks, 1e-9))
        played = [
            peak * scale * 10 ** (-offset / 20) for peak, offset in zip(peaks, offsets, strict=True)
        ]
        lower_db = 20 * math.log10(max(1.0, *played))
        gains = [-offset - lower_db for offset in offsets]
        return cls(offsets, gains, scale, 24 if max(peaks) < QUIET else 16)


def _power_below(audio: Tensor, end_hz: float, sample_rate: int) -> float:
    """Summed power of [C, T] below a frequency."""
    spectrum = torch.fft.rfft(audio.double())
    bins = max(1, round(end_hz * audio.shape[-1] / sample_rate))
    return float(spectrum[..., :bins].abs().square().sum())


def draw(versions: Sequence[Tensor]) -> list[bytes]:
    """A PNG spectrogram of each version [C, T]; one colour scale, `RANGE_DB` down from the loudest
    point of all; low frequencies at the bottom."""
    levels = [spectrogram_db(audio) for audio in versions]
    top_db = max(float(level.max()) for level in levels)
    pictures = []
    for level_db in levels:
        level_db = _fewer(_fewer(level_db, PICTURE_ROWS, axis=0), PICTURE_COLUMNS, axis=1)
        shade = (COLOURS - 1) * (1 + (level_db - top_db) / RANGE_DB)
        index = np.clip(np.rint(shade), 0, COLOURS - 1).astype(np.uint8)
        image = Image.fromarray(np.flipud(index), mode="P")
        image.putpalette(_palette().tobytes())
        with io.BytesIO() as file:
            image.save(file, format="PNG", optimize=True)
            pictures.append(file.getvalue())
    return pictures


def _fewer(level_db: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Mean power of neighbours, so that at most ``count`` rows or columns are left."""
    size = level_db.shape[axis]
    if size <= count:
        return level_db
    starts = np.linspace(0, size, count, endpoint=False).astype(int)
    power = np.add.reduceat(10 ** (level_db / 10), starts, axis=axis)
    widths = np.diff([*starts, size])
    return 10 * np.log10(power / (widths[:, None] if axis == 0 else widths))


def _palette() -> np.ndarray:
    """[COLOURS, 3] uint8."""
    return (colormaps["magma"](np.linspace(0, 1, COLOURS))[:, :3] * 255).round().astype(np.uint8)


def _palette_css() -> list[str]:
    """A few colours from silence to the loudest, for the legend."""
    return [f"rgb({r},{g},{b})" for r, g, b in _palette()[:: COLOURS // 8].tolist()]


def _flac(audio: Tensor, sample_rate: int, bits: int) -> bytes:
    with io.BytesIO() as file:
        soundfile.write(file, audio.T.numpy(), sample_rate, subtype=f"PCM_{bits}", format="FLAC")
        return file.getvalue()


def _check(versions: Sequence[Version]) -> None:
    names = [one.name for one in versions]
    roles = [one.role for one in versions]
    shapes = {tuple(one.audio.shape) for one in versions}
    if len(set(names)) < len(names) or ANCHOR in names:
        raise ValueError(f"versions need distinct names, none of them {ANCHOR!r}: {names}")
    if roles.count("truth") != 1 or roles.count("input") != 1:
        raise ValueError(f"one truth and one input are needed, the roles are {roles}")
    if len(shapes) > 1:
        raise ValueError(f"versions of one clip differ in shape: {sorted(shapes)}")


def _charts(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    charts: dict[str, list[dict[str, Any]]] = {}
    for curve in curves:
        every = max(1, math.ceil(len(curve.steps) / MAX_CURVE_POINTS))
        line = {
            "run": curve.run,
            "common": curve.is_common,
            "steps": curve.steps[::every].tolist(),
            "values": [_finite(value) for value in curve.values[::every].tolist()],
        }
        charts.setdefault(curve.metric, []).append(line)
    return [{"metric": metric, "lines": lines} for metric, lines in charts.items()]


def _html(page: Mapping[str, Any]) -> str:
    """The template with style, scripts and data inside."""
    data = json.dumps(page, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "/*STYLE*/": _static("listen.css"),
        "/*SCRIPTS*/": "\n".join(_static(name) for name in SCRIPTS),
        "/*DATA*/": data,
    }
    pattern = re.compile("|".join(map(re.escape, parts)))
    return pattern.sub(lambda match: parts[match[0]], _static("listen.html"))


def _files_of(path: Path) -> set[str]:
    """The files that a page lists as its own; none where it is missing or no page of ours."""
    try:
        found = _DATA.search(path.read_text(encoding="utf-8"))
        return set(json.loads(found[1])["files"]) if found else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _slug(name: str) -> str:
    """A short file name for any system: ASCII letters, digits, dashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[-40:] or "x"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _rolloff_hz(audio: Tensor, sample_rate: int) -> float:
    return spectral_rolloff(audio[None], sample_rate).item()


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return round(value, 5) if value is not None and math.isfinite(value) else None

"""The clips of an evaluation: which stretch of which file, what it is, and up to where it is true.

One clip per file: clips of one file are not independent, and a long file would count for many. The
list is a function of the folder's names and of the seed, so everybody who has the files gets the
same clips, and adding a category changes nothing in the others.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.file import resampled_length
from saga_sr.audio.index import AudioIndex
from saga_sr.data.caption_table import CAPTION_FILE, CaptionTable
from saga_sr.dataset import ClipReader, Crop
from saga_sr.degradation import Degradation, Kept, kept_hz
from saga_sr.evaluate.example import Example
from saga_sr.lowpass import Lowpass, apply_lowpass, field_lowpass
from saga_sr.metrics import LEAST_BAND
from saga_sr.support.files import sha256_of
from saga_sr.support.randomness import numpy_generator

LEAST_SAMPLES = 1025  # half a window of the metrics, and one
FULL_BAND = 0.9977  # of the Nyquist frequency: 22 kHz at 44.1 kHz


@dataclass(frozen=True)
class Clip:
    """A stretch of a file that is evaluated.

    Attributes:
        name: path of the file below the data folder without suffix; unique.
        category: first folder of that path.
        crop: the stretch.
        end_hz: where the spectrum of the stretch ends; 0 if it is silent.
        degradation: what is done to it in place of the field's low-pass.
    """

    name: str
    category: str
    crop: Crop
    end_hz: float = 0.0
    degradation: Degradation | None = None

    def measured_end_hz(self, sample_rate: int) -> float | None:
        """Up to where it is measured; None is all the way."""
        return None if self.end_hz >= FULL_BAND * sample_rate / 2 else self.end_hz

    def problem(self, cutoff_hz: float) -> str | None:
        """Why it cannot be measured at a cutoff, or None."""
        if self.crop.length < LEAST_SAMPLES:
            return f"shorter than {LEAST_SAMPLES} samples"
        if self.end_hz == 0:
            return "silent"
        if self.end_hz < LEAST_BAND * cutoff_hz:
            return f"its truth ends at {self.end_hz:.0f} Hz"
        return None


def choose_clips(
    index: AudioIndex, num_clips: int, clip_seconds: float, sample_rate: int, seed: int
) -> list[Clip]:
    """One clip of each chosen file of an index of one folder.

    Args:
        index: of one folder; its subfolders are the categories.
        num_clips: at most so many per category, evenly spread over the names of its files.
        clip_seconds: at most so long; a shorter file is a clip as it is.
        sample_rate: at which clips are counted and read.
        seed: a clip's start depends on (seed, name) alone.
    """
    by_category: dict[str, list[int]] = defaultdict(list)
    for position in range(len(index)):
        parts = index.relative_path(position).split("/")
        by_category[parts[0] if len(parts) > 1 else index.folders[0].name].append(position)
    names = _unique_names([index.relative_path(position) for position in range(len(index))])
    clips = []
    for category, files in sorted(by_category.items()):
        count = min(num_clips, len(files))
        for turn in range(count):
            position = files[(2 * turn + 1) * len(files) // (2 * count)]
            name, longest = names[position], round(clip_seconds * sample_rate)
            rng = numpy_generator("evaluated clip", seed, name)
            available = _length(index, position, sample_rate)
            length = min(available, longest)
            start = int(rng.integers(available - length + 1))
            clips.append(Clip(name, category, Crop(position, start, length)))
    return clips


def _unique_names(paths: Sequence[str]) -> list[str]:
    """Paths without suffix, with it (``a-flac``) where two would be the same."""
    short = [path.rsplit(".", 1)[0] for path in paths]
    twice = (
        {name for name in short if short.count(name) > 1} if len(set(short)) < len(short) else ()
    )
    return [
        "-".join(path.rsplit(".", 1)) if name in twice else name
        for path, name in zip(paths, short, strict=True)
    ]


def _length(index: AudioIndex, position: int, sample_rate: int) -> int:
    """Samples of a file at ``sample_rate``."""
    header = index.header(position)
    return resampled_length(header.frames, header.sample_rate, sample_rate)


def other_texts(texts: Sequence[str], seed: int) -> dict[str, str]:
    """Another one for each distinct text but "": a circle in an order that the seed decides.

    Empty where there are fewer than two.
    """
    distinct = sorted(set(texts) - {""})
    order = [distinct[n] for n in numpy_generator("other texts", seed).permutation(len(distinct))]
    return dict(zip(order, order[1:] + order[:1], strict=True)) if len(order) > 1 else {}


class Clips:
    """The chosen clips of a folder and their audio.

    Args:
        folder: holds audio, at any depth, and perhaps captions.jsonl.
        sample_rate, num_clips, clip_seconds, seed: see `choose_clips`.
        mono: mix every truth down to one channel.

    Attributes:
        clips: all that were chosen, with the end of their spectrum.
        sample_rate: in Hz.
    """

    def __init__(
        self,
        folder: Path,
        sample_rate: int,
        num_clips: int,
        clip_seconds: float,
        seed: int,
        mono: bool,
    ) -> None:
        self.index = AudioIndex.scan([folder], flag="--data")
        self.sample_rate, self.mono = sample_rate, mono
        captions = folder / CAPTION_FILE
        tables = [CaptionTable.read(captions)] if captions.is_file() else None
        self._reader = ClipReader(self.index, 1, sample_rate, captions=tables)
        chosen = choose_clips(self.index, num_clips, clip_seconds, sample_rate, seed)
        self.clips = [
            replace(clip, end_hz=spectrum_end_hz(self.audio(clip), sample_rate))
            for clip in tqdm(chosen, "Reading clips", disable=None)
        ]
        self._others = other_texts(self.prompts(), seed)

    def audio(self, clip: Clip) -> Tensor:
        """The truth of a clip, [C, T] with the file's own channels, or one with ``--mono``."""
        crop = clip.crop
        audio = self.index.read(crop.position, crop.start, crop.length, self.sample_rate)
        tensor = torch.from_numpy(audio)
        return tensor.mean(dim=0, keepdim=True) if self.mono else tensor

    def channels(self, clip: Clip) -> int:
        return 1 if self.mono else self.index.header(clip.crop.position).channels

    def low_passed(self, cutoff_hz: float) -> tuple[list[Clip], dict[Clip, str]]:
        """The clips that can be measured at a cutoff, and why the others cannot."""
        problems = {c: p for c in self.clips if (p := c.problem(cutoff_hz)) is not None}
        return [clip for clip in self.clips if clip not in problems], problems

    def degraded(self, degradation: Degradation) -> tuple[float, list[Clip], dict[Clip, str]]:
        """The median of what a degradation keeps, in Hz, the clips that can be measured, and why
        the others cannot."""
        kept: dict[Clip, float] = {}
        problems: dict[Clip, str] = {}
        for clip in self.clips:
            category = f"{clip.category}, {degradation}"
            changed = replace(clip, category=category, degradation=degradation)
            hz = self._degraded(changed)[1].cutoff_hz if clip.end_hz > 0 else 0.0
            problem = changed.problem(hz)
            if problem is None and hz == 0:
                problem = "nothing of it is kept as it was"
            elif problem is not None and hz > 0:
                problem += f", and {hz:.0f} Hz of it are kept"
            if problem is None:
                kept[changed] = hz
            else:
                problems[changed] = problem
        return float(np.median([*kept.values()] or [0.0])), [*kept], problems

    def _degraded(self, clip: Clip) -> tuple[Tensor, Kept]:
        truth, rate, degradation = self.audio(clip), self.sample_rate, clip.degradation
        assert degradation is not None
        lr_audio = degradation.apply(truth, rate)
        return lr_audio, Kept(*kept_hz(truth, lr_audio, rate, degradation.own_rate))

    def example(self, clip: Clip, cutoff_hz: float) -> Example:
        truth = self.audio(clip)
        lowpass: Lowpass | Kept = field_lowpass(cutoff_hz)
        if clip.degradation is not None:
            lr_audio, lowpass = self._degraded(clip)
        else:
            lr_audio = apply_lowpass(truth, self.sample_rate, field_lowpass(cutoff_hz))
        text = self._reader.text(clip.crop)
        whole = clip.crop.length == _length(self.index, clip.crop.position, self.sample_rate)
        return Example(
            clip.name,
            truth,
            lr_audio,
            self.sample_rate,
            lowpass,
            prompt=text["prompt"],
            other_prompt=self._others.get(text["prompt"], ""),
            transcript=(text["transcript"] or "") if whole else "",  # it is of the whole file
        )

    def prompts(self) -> list[str]:
        return [self._reader.text(clip.crop)["prompt"] for clip in self.clips]

    def describe(self) -> list[dict[str, Any]]:
        """Files with hashes and stretches, as JSON values."""
        return [
            {
                "clip": clip.name,
                "category": clip.category,
                "file": self.index.relative_path(clip.crop.position),
                "sha256": sha256_of(self.index.path(clip.crop.position)),
                "start": clip.crop.start,
                "length": clip.crop.length,
                "channels": self.channels(clip),
                "truth_end_hz": clip.end_hz,  # unrounded: one bin changes every figure
            }
            for clip in self.clips
        ]

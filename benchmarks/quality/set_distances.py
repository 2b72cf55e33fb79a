#!/usr/bin/env python
"""What the distances of sets of clips tell apart, and what they call different that is the same.

    python benchmarks/quality/set_distances.py --data VAL --num_clips 24 --stretches 6

On the clips of `saga_sr.evaluate` (``--stretches`` of every file that is longer than one), for each
category: halves of the truth against each other, 50 splits of its files at random (what is nothing:
mean and where 95 % lie); the unprocessed input; band replication; shaped noise; and noise with the
truth's own levels in every third octave and frame above the cutoff, which has no band error to
speak of and the texture of noise. In brackets: 95 % intervals over files. Then the
halves of all categories together, ``--halves`` files on each side: what is unbiased stays at 0.

KD aisfx needs `pip install --no-deps -r requirements-metrics.txt`.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.evaluate.baselines import DEFAULT_ENVELOPE
from saga_sr.evaluate.clips import Clips
from saga_sr.evaluate.competitors import BandReplication, ShapedNoise
from saga_sr.evaluate.example import Example
from saga_sr.evaluate.intervals import interval, resampled_counts
from saga_sr.evaluate.sets import DISTANCES, Aisfx, OfflineEmbedding
from saga_sr.metrics import band_edges_hz
from saga_sr.support.errors import UserError, run_cli
from saga_sr.support.randomness import numpy_generator, torch_generator
from saga_sr.support.tables import markdown_table, number

RATE, N_FFT, HOP = 44100, 2048, 512
SPLITS = 50
TRUTH = "truth"
Frames = dict[str, dict[str, list[Tensor]]]  # row -> embedding -> frames of each clip


def noise_of_right_levels(example: Example) -> Tensor:
    """[C, T]: noise with the truth's level in every third octave and frame above the cutoff."""
    window = torch.hann_window(N_FFT)
    generator = torch_generator("right levels", example.name)
    noise = torch.randn(example.truth.shape, generator=generator)
    spectra = [
        torch.stft(a, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
        for a in (noise, example.truth)
    ]
    shaped = torch.zeros_like(spectra[0])
    edges = torch.tensor(band_edges_hz(example.lowpass.cutoff_hz / 2, RATE / 2))
    for low, high in pairwise((edges * N_FFT / RATE).round().int().tolist()):
        band = slice(low, high + 1)
        ours, theirs = (s[:, band].abs().square().mean(dim=1, keepdim=True) for s in spectra)
        shaped[:, band] = spectra[0][:, band] * (theirs / ours).sqrt()
    audio = torch.istft(shaped, N_FFT, HOP, window=window, length=noise.shape[-1])
    return example.crossed(audio, "soft")


def halves(clips: Sequence[Tensor], files: Sequence[str], distance: str, most: int) -> np.ndarray:
    """Distances between two halves of the files, split at random, ``most`` files a half."""
    by_file: dict[str, list[Tensor]] = defaultdict(list)
    for file, clip in zip(files, clips, strict=True):
        by_file[file].append(clip)
    names, count = list(by_file), min(most, len(by_file) // 2)
    found = []
    for split in range(SPLITS):
        order = numpy_generator("halves", split).permutation(len(names))
        sides = [
            [torch.cat(by_file[names[n]]) for n in part]
            for part in (order[:count], order[count : 2 * count])
        ]
        each = [str(number) for number in range(count)]
        found += list(DISTANCES[distance](*sides, each, np.ones((1, count))))
    return np.array(found)


def spread(values: np.ndarray) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{number(values.mean())} ({number(low)} to {number(high)})"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="audio, a folder per category")
    add("--cutoff", type=float, default=4000.0, metavar="HZ")
    add("--num_clips", type=int, default=24, help="files per category, at most (24)")
    add("--stretches", type=int, default=6, help="of each file that is long enough (6)")
    add("--clip_seconds", type=float, default=3.0)
    add("--halves", type=int, nargs="+", default=[4, 8, 16, 32], metavar="FILES")
    return parser.parse_args(argv)


def main(flags: argparse.Namespace) -> int:
    if not flags.data.is_dir():
        raise UserError(f"--data {flags.data}: no such folder")
    embeddings = [OfflineEmbedding(), *([Aisfx(torch.device("cpu"))] * Aisfx.is_installed())]
    columns = [(d, e.name) for e in embeddings for d in e.distances]
    baselines = [BandReplication("soft"), ShapedNoise("soft", 0, DEFAULT_ENVELOPE)]
    groups: dict[str, Frames] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    files: dict[str, list[str]] = defaultdict(list)
    seen = set()
    for seed in range(flags.stretches):
        clips = Clips(flags.data, RATE, flags.num_clips, flags.clip_seconds, seed, mono=True)
        for clip in clips.measurable(flags.cutoff):
            if (clip.name, clip.crop) in seen:
                continue
            seen.add((clip.name, clip.crop))
            example = clips.example(clip, flags.cutoff)
            rows = {TRUTH: example.truth, "unprocessed": example.lr_audio}
            rows |= {row.name: row.restore(example) for row in baselines}
            rows["noise of the right levels"] = noise_of_right_levels(example)
            files[clip.category].append(clip.name)
            for row, audio in rows.items():
                for embedding in embeddings:
                    groups[clip.category][row][embedding.name].append(embedding(audio, RATE))
    header = [f"{distance} {embedding}" for distance, embedding in columns]
    for category, frames in groups.items():
        own = files[category]
        count = len(set(own))
        counts = resampled_counts(own, 0, category)
        lines = []
        floor = [halves(frames[TRUTH][e], own, d, count) for d, e in columns]
        lines.append(["halves of the truth", *map(spread, floor)])
        for row in [name for name in frames if name != TRUTH]:
            cells = []
            for distance, embedding in columns:
                sides = frames[row][embedding], frames[TRUTH][embedding]
                drawn = DISTANCES[distance](*sides, own, counts)
                low, high = interval(drawn, count) or (np.nan, np.nan)
                cells.append(f"{number(drawn[0])} ({number(low)} to {number(high)})")
            lines.append([row, *cells])
        title = f"{category}: {len(own)} clips of {count} files"
        print(markdown_table([title, *header], lines) + "\n", flush=True)
    everything = {e: [c for f in groups.values() for c in f[TRUTH][e]] for _, e in columns}
    names = [name for category in files.values() for name in category]
    lines = [
        [str(most), *(spread(halves(everything[e], names, d, most)) for d, e in columns)]
        for most in flags.halves
        if 2 * most <= len(set(names))
    ]
    print(markdown_table(["halves of the truth, files in each", *header], lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(lambda: main(parse_args())))

#!/usr/bin/env python
"""What the transformer of a model knows: its velocity error as a share of a blind network's.

    python benchmarks/quality/velocity_error.py --model MODEL \\
        --audio_dir VAL/music VAL/speech VAL/effects --cutoffs 4000 8000

This is `val/velocity_error` (`saga_sr.flow.velocity_error`) on files of one's own, at the times of
validation: squared error where the band is missing, divided by that of a network that answers
zero. 1: it knows nothing. Any model of either family; no text, default target roll-off.

Of every file up to ``--segments`` segments, evenly spread, are low-passed by the field's filter.
A folder is a category; its figure is the mean over files. Silent segments, and those whose
spectrum ends too close above the cutoff, are left out. Noise depends on the file's number and the
segment's, so figures of two models compare segment by segment.

The last line is JSON: cutoff in Hz -> folder's name -> time -> share.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.file import resampled_length
from saga_sr.audio.index import AudioIndex
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.metrics import LEAST_BAND, LOSS_TIMES
from saga_sr.model import SAGASRModel
from saga_sr.support.choices import DEVICES
from saga_sr.support.device import pick_device
from saga_sr.support.errors import UserError, run_cli
from saga_sr.support.tables import markdown_table
from saga_sr.training.validation import flow_losses

PREFIX = "velocity_error_t"
Shares = dict[str, float]  # time -> share


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="exported model: folder or hub id")
    add("--audio_dir", type=Path, nargs="+", required=True, metavar="DIR", help="categories")
    add("--cutoffs", type=float, nargs="+", default=[4000.0, 8000.0], metavar="HZ")
    add("--segments", type=int, default=8, metavar="N", help="of each file, at most (8)")
    add("--batch_size", type=int, default=8, help="segments at once (8); changes no figure")
    add("--device", choices=DEVICES, default="auto")
    return parser.parse_args(argv)


class Segments:
    """Segments of every file of a folder, in the channels of a model.

    Attributes:
        audio: [N, C, T]; a file shorter than a segment is filled with silence.
        files: number of the file of each.
        keys: of each, for its noise.
        end_hz: [N], where the spectrum of each ends; 0 is silence.
    """

    def __init__(self, folder: Path, model: SAGASRModel, most: int) -> None:
        config = model.config
        size, rate, channels = config.sample_size, config.sample_rate, config.audio_channels
        index = AudioIndex.scan([folder], flag="--audio_dir", progress=False)
        audio, self.files, self.keys = [], [], []
        for position in range(len(index)):
            header = index.header(position)
            length = resampled_length(header.frames, header.sample_rate, rate)
            count = min(most, max(1, length // size))
            for number, start in enumerate(np.linspace(0, max(0, length - size), count)):
                read = index.read(position, int(start), min(size, length), rate)
                segment = torch.from_numpy(read)
                if len(segment) != channels:
                    segment = segment.mean(dim=0, keepdim=True).expand(channels, -1)
                audio.append(torch.nn.functional.pad(segment, (0, size - segment.shape[-1])))
                self.files.append(position)
                self.keys.append(1000 * position + number)
        self.audio = torch.stack(audio)
        self.end_hz = torch.tensor([spectrum_end_hz(one, rate) for one in audio])


@torch.no_grad()
def measure(
    model: SAGASRModel, segments: Segments, cutoff_hz: float, batch_size: int
) -> tuple[Shares, int]:
    """Means over the files of a folder, and how many files count; NaN where none does."""
    rate, lowpass = model.config.sample_rate, field_lowpass(cutoff_hz)
    device = next(model.parameters()).device
    usable = (segments.end_hz >= LEAST_BAND * cutoff_hz).nonzero()[:, 0].tolist()
    of_files: dict[int, list[list[float]]] = {}
    for first in range(0, len(usable), batch_size):
        chosen = usable[first : first + batch_size]
        hr = segments.audio[chosen].to(device)
        lr = torch.stack([apply_lowpass(one, rate, lowpass) for one in hr])
        passband_hz = torch.full((len(chosen),), lowpass.passband_hz(rate), device=device)
        cond = model.condition(lr, passband_hz=passband_hz)
        end_hz, keys = segments.end_hz[chosen].to(device), [segments.keys[n] for n in chosen]
        found = flow_losses(model, model.encode(hr), cond, end_hz, keys)
        shares = torch.stack([found[f"{PREFIX}{time:g}"] for time in LOSS_TIMES], dim=1)
        for number, row in zip(chosen, shares.tolist(), strict=True):
            if np.isfinite(row).all():
                of_files.setdefault(segments.files[number], []).append(row)
    means = [np.mean(rows, axis=0) for rows in of_files.values()]
    mean = np.mean(means, axis=0) if means else np.full(len(LOSS_TIMES), np.nan)
    return {f"{t:g}": float(share) for t, share in zip(LOSS_TIMES, mean, strict=True)}, len(means)


def categories(flags: argparse.Namespace) -> dict[str, Path]:
    """Folders by their names.

    Raises:
        UserError: lists what of ``flags`` cannot be.
    """
    names = [folder.resolve().name for folder in flags.audio_dir]
    problems = [f"--audio_dir {one}: no such folder" for one in flags.audio_dir if not one.is_dir()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"--audio_dir: two folders are called {', '.join(twice)}")
    problems += [f"--cutoffs {hz:g}: must be above 0" for hz in flags.cutoffs if not hz > 0]
    for name in ("segments", "batch_size"):
        if getattr(flags, name) < 1:
            problems.append(f"--{name} is {getattr(flags, name)}; must be at least 1")
    if problems:
        raise UserError.listing("the flags cannot be used", problems)
    return dict(zip(names, flags.audio_dir, strict=True))


def main(flags: argparse.Namespace) -> int:
    named = categories(flags)
    model = SAGASRModel.from_pretrained(flags.model).to(pick_device(flags.device)).eval()
    too_high = [hz for hz in flags.cutoffs if hz >= model.config.sample_rate / 2]
    if too_high:
        raise UserError(f"--cutoffs: {max(too_high):g} Hz is not below the Nyquist frequency")
    folders = {name: Segments(folder, model, flags.segments) for name, folder in named.items()}
    result: dict[str, dict[str, Shares]] = {}
    rows = []
    for cutoff_hz in flags.cutoffs:
        for name, segments in folders.items():
            shares, files = measure(model, segments, cutoff_hz, flags.batch_size)
            if not files:
                raise UserError(f"--audio_dir {name}: no file can be measured at {cutoff_hz:g} Hz")
            result.setdefault(f"{cutoff_hz:g}", {})[name] = shares
            cells = [f"{share:.3f}" for share in shares.values()]
            rows.append([f"{name}, {cutoff_hz / 1000:g} kHz", *cells, str(files)])
    print(markdown_table(["t", *(f"{time:g}" for time in LOSS_TIMES), "files"], rows))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(lambda: main(parse_args())))

#!/usr/bin/env python
"""Should the digital silence around a short file count in the loss?

    python benchmarks/quality/padding_loss.py --audio_dir TRAIN --val_dir VAL

Two small DiTs (those of `v_start.py`, on its latents) learn the flow from the same draws, times and
noise. As with a corpus of short recordings, three of four training clips are sound for 28 % of
their frames, at a random place, and silence elsewhere. One model's loss counts every frame, the
other's only those that hold sound (each clip's mean counts alike). The table is the loss on
held-out clips after equally many steps: clips without silence, the sound of clips with silence,
and their silence.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared import one_thread

if __name__ == "__main__":
    one_thread()

import torch
from torch import Tensor

from benchmarks.quality.v_start import Latents, batches, started
from saga_sr.flow import interpolate, target_velocity
from saga_sr.metrics import LOSS_TIMES
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.support.errors import run_cli
from saga_sr.support.randomness import torch_generator
from saga_sr.support.tables import markdown_table

SOUND = 0.28  # of the frames of a padded clip: the speech of the trial corpus
PADDED = 0.75  # of the clips


def sound_of(count: int, frames: int, share: float, name: object) -> Tensor:
    """1 where clips hold sound and 0 where they are padded, [count, 1, frames]."""
    generator = torch_generator("padding", str(name))
    length = round(SOUND * frames)
    start = torch.randint(frames - length + 1, (count, 1, 1), generator=generator)
    position = torch.arange(frames)
    sound = ((position >= start) & (position < start + length)).float()
    whole = torch.rand(count, 1, 1, generator=generator) >= share
    return torch.where(whole, torch.ones_like(sound), sound)


def train(latents: Latents, steps: int, learning_rate: float, count_silence: bool) -> SAGASRModel:
    model = started(None, "flow")
    optimizer = torch.optim.AdamW([p for _, p in model.trainable()], lr=learning_rate)
    for step, (data, lr, t, noise) in enumerate(batches(latents, steps, "padding")):
        sound = sound_of(len(data), data.shape[-1], PADDED, step)
        data, lr = data * sound, lr * sound
        velocity = model.velocity(interpolate(data, noise, t), t, Conditioning(lr))
        error = (velocity - target_velocity(data, noise)).square().mean(dim=1, keepdim=True)
        weight = torch.ones_like(sound) if count_silence else sound
        loss = ((error * weight).sum(dim=-1) / weight.sum(dim=-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def held_out(model: SAGASRModel, latents: Latents) -> list[float]:
    """Losses of clips without silence, of the sound of padded clips, and of their silence."""
    sums, counts = torch.zeros(3), torch.zeros(3)
    for padded in (0.0, 1.0):
        sound = sound_of(len(latents.hr), latents.hr.shape[-1], padded, "held out")
        data, lr = latents.hr * sound, latents.lr * sound
        for time in LOSS_TIMES:
            noise = torch.randn(data.shape, generator=torch_generator("padding val", str(time)))
            t = torch.full((len(data),), time)
            velocity = model.velocity(interpolate(data, noise, t), t, Conditioning(lr))
            error = (velocity - target_velocity(data, noise)).square().mean(dim=1, keepdim=True)
            for place, weight in ((int(padded), sound), (2, 1 - sound)):
                sums[place] += (error * weight).sum()
                counts[place] += weight.sum()
    return [float(value) for value in sums / counts]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--audio_dir", type=Path, required=True, metavar="DIR")
    add("--val_dir", type=Path, required=True, metavar="DIR")
    add("--clips", type=int, default=600, metavar="N", help="crops to train on (600)")
    add("--steps", type=int, default=400, metavar="N", help="(400)")
    add("--learning_rate", type=float, default=1e-3, help="(1e-3)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    latents = Latents.of_folder(args.audio_dir, args.clips)
    clips = Latents.of_folder(args.val_dir, 64, latents.std)
    rows = []
    for name, count_silence in (("counts", True), ("is left out", False)):
        model = train(latents, args.steps, args.learning_rate, count_silence)
        rows.append([name, *(f"{loss:.3f}" for loss in held_out(model, clips))])
        print(rows[-1], file=sys.stderr, flush=True)
    print(
        markdown_table(
            ["in training, silence", "clips without silence", "sound beside silence", "silence"],
            rows,
        )
    )


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

#!/usr/bin/env python
"""What a flow keeps of weights that were trained with the v objective, with the map and without it.

    python benchmarks/quality/v_start.py --audio_dir TRAIN --val_dir VAL

A small DiT without LR channels is trained with stable-audio-tools' v objective, as Stable Audio
Open 1.0 was. Its weights start three flows (`saga_sr.weights.load_stable_audio`) that now also see
the LR latent: with ``parameterisation`` "v" (`saga_sr.flow.network_gains`), with "flow" (the same
weights taken for a velocity), and not at all (fresh weights). All see the same clips, times and
noise. The table is the flow's loss on held-out clips at fixed times, after as many steps each.

The latents are the companded MDCT of real audio at unit variance per channel (64 channels x 64
frames), so no autoencoder's weights are needed; LR is the clip low-passed at 4 kHz.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared import RATE, ROOT, one_thread

if __name__ == "__main__":
    one_thread()

import torch
from torch import Tensor

from saga_sr.audio.index import AudioIndex
from saga_sr.config import MDCTConfig, parse_model_config
from saga_sr.dataset import ClipReader
from saga_sr.flow import interpolate, sample_timesteps, target_velocity
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.metrics import LOSS_TIMES
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.support.errors import run_cli
from saga_sr.support.randomness import numpy_generator, torch_generator
from saga_sr.support.tables import markdown_table
from saga_sr.weightfree.mdct import MDCTPretransform
from saga_sr.weights import load_stable_audio

CHANNELS, FRAMES = 64, 64  # of the latents
SAMPLES = CHANNELS * FRAMES
LOUD = 1e-3  # root mean square that a clip must have
CUTOFF_HZ = 4000.0
BATCH = 16


@dataclass(frozen=True)
class Latents:
    """HR and LR latents [N, CHANNELS, FRAMES], over ``std`` [CHANNELS, 1]."""

    hr: Tensor
    lr: Tensor
    std: Tensor

    @classmethod
    def of_folder(cls, folder: Path, count: int, std: Tensor | None = None) -> "Latents":
        """Of ``count`` random crops, all at one level, over ``std`` (None: their own)."""
        reader = ClipReader(AudioIndex.scan([folder], progress=False), SAMPLES, RATE, 1)
        rng, clips = numpy_generator("v start", str(folder.name)), []
        while len(clips) < count:
            clip = reader.read(reader.draw_start(rng, reader.index.draw(rng), SAMPLES), rng)
            level = clip.square().mean().sqrt()
            if level > LOUD:
                clips.append(0.1 * clip / level)
        audio = torch.stack(clips)
        mdct = MDCTPretransform(MDCTConfig(hop=CHANNELS, channels=1, power=0.5), RATE)
        hr = mdct.encode(audio)
        lr = mdct.encode(apply_lowpass(audio, RATE, field_lowpass(CUTOFF_HZ)))
        if std is None:
            std = hr.square().mean(dim=(0, 2))[:, None].sqrt()
        return cls(hr / std, lr / std, std)


def small_config(parameterisation: str = "flow") -> dict[str, Any]:
    """The small JSON with a DiT of 128 x 4 and an autoencoder that nothing here uses."""
    raw = json.loads((ROOT / "saga_model_config_small.json").read_text(encoding="utf-8"))
    raw["sample_size"] = SAMPLES
    network = {"channels": 4, "c_mults": [1, 2], "strides": [8, 8], "use_snake": True}
    raw["model"]["pretransform"]["config"] = {
        "encoder": {
            "type": "oobleck",
            "config": {"in_channels": 2, "latent_dim": 2 * CHANNELS} | network,
        },
        "decoder": {
            "type": "oobleck",
            "config": {"out_channels": 2, "latent_dim": CHANNELS, "final_tanh": False} | network,
        },
        "bottleneck": {"type": "vae"},
        "latent_dim": CHANNELS, "downsampling_ratio": CHANNELS, "io_channels": 2,
    }  # fmt: skip
    raw["model"]["io_channels"] = CHANNELS
    raw["model"]["conditioning"]["cond_dim"] = 32
    diffusion = raw["model"]["diffusion"]
    diffusion["parameterisation"] = parameterisation
    diffusion["config"] |= {
        "io_channels": CHANNELS, "input_concat_dim": CHANNELS, "embed_dim": 128, "depth": 4,
        "num_heads": 4, "cond_token_dim": 32, "global_cond_dim": 64, "prepend_cond_dim": 128,
    }  # fmt: skip
    return raw


def fresh_model(parameterisation: str = "flow") -> SAGASRModel:
    torch.manual_seed(0)  # stable-audio-tools draws initial weights from the ambient generator
    return SAGASRModel(parse_model_config(small_config(parameterisation)))


def batches(latents: Latents, steps: int, name: str) -> Iterator[tuple[Tensor, ...]]:
    """(HR, LR, t, noise) of every step, a function of ``name`` and the step."""
    for step in range(steps):
        generator = torch_generator("v start", name, step)
        chosen = torch.randint(len(latents.hr), (BATCH,), generator=generator)
        t = sample_timesteps(BATCH, "logit_normal", generator)
        noise = torch.randn(BATCH, CHANNELS, FRAMES, generator=generator)
        yield latents.hr[chosen], latents.lr[chosen], t, noise


def train_v(latents: Latents, steps: int, learning_rate: float) -> dict[str, Tensor]:
    """Weights of a DiT without LR channels after ``steps`` of stable-audio-tools' v objective."""
    from stable_audio_tools.inference.sampling import get_alphas_sigmas
    from stable_audio_tools.models.dit import DiffusionTransformer

    torch.manual_seed(0)
    config = small_config()["model"]["diffusion"]["config"] | {"input_concat_dim": 0}
    dit = DiffusionTransformer(diffusion_objective="v", **config)
    optimizer = torch.optim.AdamW(dit.parameters(), lr=learning_rate)
    seconds = torch.zeros(BATCH, 64)
    for data, _, t, noise in batches(latents, steps, "v"):
        alpha, sigma = (gain[:, None, None] for gain in get_alphas_sigmas(t))
        mixed = alpha * data + sigma * noise
        answer = dit(mixed, t, global_embed=seconds, use_checkpointing=False)
        loss = (answer - (alpha * noise - sigma * data)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dit.state_dict()


def started(weights: dict[str, Tensor] | None, parameterisation: str) -> SAGASRModel:
    """Our model with those weights, no autoencoder needed, the seconds' embedding silenced."""
    model = fresh_model(parameterisation)
    if weights is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.ckpt"
            torch.save({"state_dict": {f"model.model.{n}": v for n, v in weights.items()}}, path)
            load_stable_audio(model, path)
    for parameter in model.conditioners.parameters():
        parameter.data.zero_()
    return model


@torch.no_grad()
def held_out_loss(model: SAGASRModel, latents: Latents) -> float:
    """Mean squared velocity error at the fixed times of validation."""
    losses = []
    for time in LOSS_TIMES:
        noise = torch.randn(latents.hr.shape, generator=torch_generator("v start val", str(time)))
        t = torch.full((len(latents.hr),), time)
        velocity = model.velocity(interpolate(latents.hr, noise, t), t, Conditioning(latents.lr))
        losses.append((velocity - target_velocity(latents.hr, noise)).square().mean())
    return float(torch.stack(losses).mean())


def train_flow(
    model: SAGASRModel, latents: Latents, held_out: Latents, marks: list[int], learning_rate: float
) -> list[float]:
    """Held-out losses after the steps ``marks``."""
    optimizer = torch.optim.AdamW(
        [parameter for name, parameter in model.trainable()], lr=learning_rate
    )
    losses = [held_out_loss(model, held_out)] if 0 in marks else []
    for step, (data, lr, t, noise) in enumerate(batches(latents, marks[-1], "flow"), start=1):
        velocity = model.velocity(interpolate(data, noise, t), t, Conditioning(lr))
        loss = (velocity - target_velocity(data, noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in marks:
            losses.append(held_out_loss(model, held_out))
    return losses


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--audio_dir", type=Path, required=True, metavar="DIR")
    add("--val_dir", type=Path, required=True, metavar="DIR")
    add("--clips", type=int, default=600, metavar="N", help="crops to train on (600)")
    add("--v_steps", type=int, default=400, metavar="N", help="of the v objective (400)")
    add("--steps", type=int, nargs="+", default=[0, 25, 50, 100, 200], metavar="N")
    add("--learning_rate", type=float, default=1e-3, help="of the v objective (1e-3)")
    add("--flow_learning_rate", type=float, default=2e-4, help="of the flows (2e-4)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    latents = Latents.of_folder(args.audio_dir, args.clips)
    held_out = Latents.of_folder(args.val_dir, 64, latents.std)
    weights = train_v(latents, args.v_steps, args.learning_rate)
    rows = []
    for name, start, parameterisation in (
        ("v weights, mapped", weights, "v"),
        ("v weights, taken for a velocity", weights, "flow"),
        ("fresh weights", None, "flow"),
    ):
        model = started(start, parameterisation)
        losses = train_flow(model, latents, held_out, args.steps, args.flow_learning_rate)
        rows.append([name, *(f"{loss:.3f}" for loss in losses)])
        print(rows[-1], file=sys.stderr, flush=True)
    print(markdown_table(["held-out loss after", *(str(step) for step in args.steps)], rows))


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

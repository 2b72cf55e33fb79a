"""Train a thin autoencoder of stable-audio-tools, so that the paper's family runs on a CPU.

    python scripts/thin_vae.py corpus/train_fullband/{music,speech,effects} --output runs/thin

Stable Audio Open's VAE has 156 M parameters and weights that a machine without a model hub cannot
fetch. This one is of the same class, with 0.2 M parameters and a sixteenth of the compression, made
in minutes: enough to train, distil and measure a model of the VAE's family on real audio, not to
sound well. The output folder then holds ``vae.safetensors`` and ``config.json``, which is
saga_model_config_small.json with this VAE and a narrower DiT, in mono:

    python train_saga_sr.py --train_dir ... --model_config runs/thin/config.json \\
        --pretransform_ckpt runs/thin/vae.safetensors --disable_caption --output_dir runs/thin-f0

Losses: square roots of STFT magnitudes in three resolutions, the waveform, a little of the KL
divergence. There is no discriminator: the high band comes out as noisy as a mean allows.
"""

# ruff: noqa: E402
import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from saga_sr.support.errors import run_cli


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, without torch."""
    summary, details = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", type=Path, nargs="+", help="folders, drawn equally often")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000, help="(%(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="clips, twice (%(default)s)")
    parser.add_argument("--learning_rate", type=float, default=3e-3, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    OPTIONS = parse_args()

import json
import math
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from saga_sr.audio.index import AudioIndex
from saga_sr.config import parse_model_config
from saga_sr.dataset import ClipReader, DrawSampler, SAGASRDataset, collate
from saga_sr.families import create_pretransform
from saga_sr.pretransform import AutoencoderPretransform
from saga_sr.support.files import atomic_path, write_json_atomic

CONFIG = ROOT / "saga_model_config_small.json"
CHANNELS, MULTIPLES, STRIDES, LATENT_DIM = 16, [1, 2, 4], [4, 4, 8], 64
DIT = {"embed_dim": 256, "depth": 6, "num_heads": 4, "cond_token_dim": 256}
SAMPLE_SIZE, CROP_SAMPLES = 32768, 8192
WINDOWS = (128, 512, 2048)
WAVEFORM_WEIGHT, KL_WEIGHT = 10.0, 1e-5
FIXED_CLIPS = 16  # of which the latents' size and the final error are measured


def thin_config() -> dict[str, Any]:
    """The small config with a VAE of `CHANNELS` and a DiT of `DIT`, in mono."""
    config: dict[str, Any] = json.loads(CONFIG.read_text(encoding="utf-8"))
    config |= {"audio_channels": 1, "sample_size": SAMPLE_SIZE}
    model, width = config["model"], DIT["embed_dim"]
    vae = model["pretransform"]["config"]
    shape = {"channels": CHANNELS, "c_mults": MULTIPLES, "strides": STRIDES}
    vae["encoder"]["config"] |= shape | {"in_channels": 1, "latent_dim": 2 * LATENT_DIM}
    vae["decoder"]["config"] |= shape | {"out_channels": 1, "latent_dim": LATENT_DIM}
    ratio = math.prod(STRIDES)
    vae |= {"latent_dim": LATENT_DIM, "downsampling_ratio": ratio, "io_channels": 1}
    model["conditioning"]["cond_dim"] = width
    model["io_channels"] = LATENT_DIM
    model["diffusion"]["config"] |= DIT | {
        "io_channels": LATENT_DIM,
        "input_concat_dim": LATENT_DIM,
        "global_cond_dim": 2 * width,
        "prepend_cond_dim": width,
    }
    return config


def spectra(audio: Tensor) -> list[Tensor]:
    """Square roots of the magnitudes of [B, 1, T], by one window length after the other."""
    found = []
    for size in WINDOWS:
        window = torch.hann_window(size)
        stft = torch.stft(audio[:, 0], size, size // 4, window=window, return_complex=True)
        found.append(stft.abs().clamp(min=1e-7).sqrt())
    return found


def errors(audio: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """Of the spectra and of the waveform: means of absolute differences."""
    pairs = zip(spectra(audio), spectra(decoded), strict=True)
    spectral = torch.stack([(a - b).abs().mean() for a, b in pairs]).sum()
    return spectral, (audio - decoded).abs().mean()


def fit(vae: Any, draws: SAGASRDataset, options: argparse.Namespace) -> None:
    """Train stable-audio-tools' autoencoder on HR clips and their LR clips."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=options.learning_rate, betas=(0.8, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, options.steps, pct_start=0.05
    )
    loader = torch.utils.data.DataLoader(
        draws, batch_sampler=DrawSampler(options.batch_size), collate_fn=collate, num_workers=1
    )
    for step, (hr, metadata) in zip(range(options.steps), loader, strict=False):
        audio = torch.cat([hr, torch.stack([item["lr_audio"] for item in metadata])])
        latent, info = vae.encode(audio, return_info=True)
        spectral, waveform = errors(audio, vae.decode(latent))
        loss = spectral + WAVEFORM_WEIGHT * waveform + KL_WEIGHT * info["kl"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == options.steps - 1:
            print(f"step {step}: spectra {spectral:.4f}, waveform {waveform:.5f}", flush=True)


@torch.no_grad()
def latent_scale(pretransform: AutoencoderPretransform, hr: Tensor) -> float:
    """The standard deviation of latents of clips; prints how well these are decoded."""
    latent = pretransform.encode(hr)
    ratio = hr.square().sum() / (hr - pretransform.decode(latent)).square().sum()
    print(f"{len(hr)} other clips: SNR {10 * ratio.log10():.1f} dB, latents {latent.std():.3f}")
    return round(float(latent.std()), 4)


def main(options: argparse.Namespace) -> None:
    """Train, measure, write."""
    torch.manual_seed(options.seed)  # initial weights, and the posterior's noise
    raw = thin_config()
    config = parse_model_config(raw)
    pretransform = create_pretransform(config)
    assert isinstance(pretransform, AutoencoderPretransform)
    index = AudioIndex.scan(options.audio, flag="audio")
    reader = ClipReader(index, CROP_SAMPLES, config.sample_rate, channels=1, with_text=False)
    draws = SAGASRDataset(reader, options.seed, measure_end=False)
    vae = pretransform.model.requires_grad_(True)
    fit(vae, draws, options)
    hr, _ = collate([draws[-1 - clip] for clip in range(FIXED_CLIPS)])  # of no draw in training
    raw["model"]["pretransform"]["scale"] = latent_scale(pretransform.eval(), hr)
    options.output.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.output / "vae.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in vae.state_dict().items()}, temporary)
    write_json_atomic(options.output / "config.json", raw)


if __name__ == "__main__":
    raise SystemExit(run_cli(lambda: main(OPTIONS)))

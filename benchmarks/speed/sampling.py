"""Sampling: all branches of eq. (4) in one batch against one call per branch; real-time factors.

    OMP_NUM_THREADS=1 python benchmarks/speed/sampling.py
    python benchmarks/speed/sampling.py --model_config saga_model_config.json --device cuda --bf16

The baseline calls the DiT once per branch, as the formula is written: two in F0, three in F1. Both
ways take turns. Weights are random: time does not depend on them. On a CPU the time is processor
time, which stays fair on a machine that does other things as well; medians are reported.

The real-time factor is seconds of audio per second of sampling with Euler steps, the decoder
included (its time is measured once and does not grow with the steps).
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# ruff: noqa: E402
from benchmarks.shared import medians_s
from saga_sr.config import ModelConfig, load_model_config
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance_terms
from saga_sr.weights import fold_weight_norm

STAGES = {"F0": False, "F1": True}
Way = Callable[[], object]


def build_model(config: ModelConfig, options: argparse.Namespace) -> SAGASRModel:
    torch.manual_seed(0)
    model = SAGASRModel(config).to(options.device).eval()
    fold_weight_norm(model)
    if options.compile:
        model.dit.transformer.compile()
    return model


def evaluation_ways(
    model: SAGASRModel, config: ModelConfig, batch: int, has_text: bool, device: torch.device
) -> list[Way]:
    """One guided evaluation: the branches apart, and in one batch."""
    # F0 has no cross-attention: its text is the null, hence no tokens at all.
    ids = ["prompt"] if has_text else []
    model.config = config.replacing("model.diffusion.cross_attention_cond_ids", ids)
    assert config.text is not None
    x = torch.randn(batch, config.latent_dim, config.latent_length, device=device)
    text = torch.randn(batch, config.text.max_length, config.text.dim, device=device)
    cond = Conditioning(x, text if has_text else None)
    t, terms = torch.full((batch,), 0.5, device=device), guidance_terms(1.4, 1.2, has_text)
    return [
        partial(model.guided_velocity, x, t, cond, terms, one_batch=one) for one in (False, True)
    ]


@torch.no_grad()
def report(config: ModelConfig, options: argparse.Namespace) -> None:
    device, model = torch.device(options.device), build_model(config, options)
    steps = " | ".join(f"{n} steps" for n in options.num_steps)
    print(f"| clips | stage | apart (s) | one batch (s) | ratio | decoder (s) | RTF: {steps} |")
    print("|---" * (6 + len(options.num_steps)) + "|")
    for batch in options.batch_sizes:
        latent = torch.randn(batch, config.latent_dim, config.latent_length, device=device)
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
            (decoding,) = medians_s([partial(model.decode, latent)], 1, options.device)
            for stage, has_text in STAGES.items():
                ways = evaluation_ways(model, config, batch, has_text, device)
                apart, together = medians_s(ways, options.repeats, options.device)
                factors = [
                    batch * config.duration_s / (n * together + decoding) for n in options.num_steps
                ]
                shown = " | ".join(f"{factor:.2f}" for factor in factors)
                print(
                    f"| {batch} | {stage} | {apart:.3f} | {together:.3f} "
                    f"| {apart / together:.2f} | {decoding:.2f} | {shown} |",
                    flush=True,
                )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model_config", type=Path, default=ROOT / "saga_model_config_small.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--num_steps", type=int, nargs="+", default=[8, 24, 100])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="torch.compile the DiT")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    warnings.simplefilter("ignore")
    config = load_model_config(options.model_config).replacing(
        "model.diffusion.cross_attention_cond_ids", ["prompt"]
    )
    print(
        f"\n{options.model_config.name}, {config.duration_s:.2f} s per clip, "
        f"{'bf16' if options.bf16 else 'fp32'}, {options.device}, {torch.get_num_threads()} "
        f"thread(s), torch {torch.__version__}{', compiled' if options.compile else ''}\n"
    )
    report(config, options)


if __name__ == "__main__":
    main()

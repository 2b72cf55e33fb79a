"""Sampling: all branches of eq. (4) in one batch against one call per branch; real-time factors.

    python benchmarks/sampling.py --model_config saga_model_config_small.json
    python benchmarks/sampling.py --model_config saga_model_config.json --device cuda --bf16

The baseline calls the DiT once per branch, as the formula is written. Weights are random: time does
not depend on them. The real-time factor is audio seconds per second of sampling, the DiT alone (the
decoder is measured apart), at the number of steps in the table.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from saga_sr.config import load_model_config
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance_terms
from saga_sr.weights import fold_weight_norm


def seconds_per_call(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median of ``repeats`` calls after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model_config", default="saga_model_config_small.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--num_steps", type=int, nargs="+", default=[8, 24, 100])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    config = load_model_config(options.model_config).replacing(
        "model.diffusion.cross_attention_cond_ids", ["prompt"]
    )
    torch.manual_seed(0)
    model = SAGASRModel(config).to(device).eval()
    fold_weight_norm(model)
    if options.compile:
        model.dit.transformer.compile()
    steps = " | ".join(f"{n} steps" for n in options.num_steps)
    print(f"\n{options.model_config}, {config.duration_s:.2f} s per clip, {device}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")  # fmt: skip
    print(f"| clips | stage | apart (s) | one batch (s) | ratio | real-time factor: {steps} |")
    print("|---" * (5 + len(options.num_steps)) + "|")
    for batch in options.batch_sizes:
        x = torch.randn(batch, config.latent_dim, config.latent_length, device=device)
        settings = config.text
        assert settings is not None
        text = torch.randn(batch, settings.max_length, settings.dim, device=device)
        t = torch.full((batch,), 0.5, device=device)
        for stage, has_text in (("F0", False), ("F1", True)):
            # F0 has no cross-attention: its text is the null, hence no tokens at all.
            model.config = config.replacing(
                "model.diffusion.cross_attention_cond_ids", ["prompt"] if has_text else []
            )
            cond = Conditioning(x, text if has_text else None)
            terms = guidance_terms(1.4, 1.2, has_text)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                apart, together = (
                    seconds_per_call(
                        partial(model.guided_velocity, x, t, cond, terms, one_batch=one),
                        options.repeats,
                        device,
                    )
                    for one in (False, True)
                )
            factors = [batch * config.duration_s / (n * together) for n in options.num_steps]
            shown = " | ".join(f"{factor:.2f}" for factor in factors)
            print(f"| {batch} | {stage} | {apart:.3f} | {together:.3f} | {apart / together:.2f} "
                  f"| {shown} |", flush=True)  # fmt: skip
    print(json.dumps({"device": str(device), "bf16": options.bf16, "compile": options.compile}))


if __name__ == "__main__":
    main()

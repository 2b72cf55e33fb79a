"""What restoring one clip costs, counted without running it, and what follows for a card.

    python benchmarks/speed/counts.py                     # the full model
    python benchmarks/speed/counts.py --share 0.3 --model_config JSON

FLOPs are those of torch's FlopCounterMode over one forward pass on the meta device, where nothing
is computed: the DiT at F0 and at F2 with text, the VAE's encoder and decoder. What the counter does
not see, element by element work, is bound by memory; for the VAE, whose Snakes pass over 134 MB
five times each, the bytes that these operations read and write are counted too.

The seconds of a card are an expectation, not a measurement (`benchmarks/gpu/check.py` measures):
matrix products and convolutions at ``--share`` of the dense peak, bfloat16 in the DiT and TF32 in
the VAE, which `decode` keeps in float32; the VAE's other bytes at ``--memory_share`` of the
bandwidth. Windows are taken many at once, so that the weights' own bytes do not count.
"""

# ruff: noqa: E402  (the path comes first)
import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks.gpu.cards import A100, H100, RTX_4090, Card, card_named
from saga_sr.config import ModelConfig, load_model_config
from saga_sr.distill import draw_step, teacher_steps
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance_terms
from saga_sr.support.tables import markdown_table
from saga_sr.training.early import STUDENT_STEPS
from saga_sr.weights import fold_weight_norm

TEACHER_STEPS, STUDENT_EVALUATIONS = 100, (4, 2, 1)
TAUGHT_STEPS = 4  # --teacher_steps, of two evaluations
SHARE, MEMORY_SHARE = 0.4, 0.8


class BytesBeside(TorchDispatchMode):
    """Bytes that operations without an entry in the FLOP counter read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket not in flop_registry and not function.is_view:
            tensors = [one for one in tree_leaves((args, kwargs, result)) if _is_tensor(one)]
            self.total += sum(one.numel() * one.element_size() for one in tensors)
        return result


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


@dataclass(frozen=True)
class Cost:
    """Attributes:
    flops: of products and convolutions.
    other_bytes: moved by all else.
    """

    flops: int
    other_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.other_bytes + other.other_bytes)


@dataclass(frozen=True)
class Costs:
    """Of one clip."""

    dit_f0: Cost
    dit_f2: Cost
    encoder: Cost
    decoder: Cost

    @property
    def vae(self) -> Cost:
        return self.encoder + self.decoder


@torch.no_grad()
def cost(compute: Callable[[], object]) -> Cost:
    """Of a computation on the meta device."""
    with FlopCounterMode(display=False) as flops, BytesBeside() as beside:
        compute()
    return Cost(flops.get_total_flops(), beside.total)


def count(config: ModelConfig, device: str = "meta") -> Costs:
    """Of ``config`` at F0 and at F2."""
    ids, rolloff = "model.diffusion.cross_attention_cond_ids", "model.diffusion.compute_rolloff"
    f0 = config.replacing(ids, []).replacing(rolloff, False)
    f2 = config.replacing(ids, ["prompt"]).replacing(rolloff, True)
    with torch.device(device):
        model = SAGASRModel(f2).eval()
        fold_weight_norm(model)
        latent = torch.zeros(1, config.latent_dim, config.latent_length)
        audio = torch.zeros(1, config.audio_channels, config.sample_size)
        t, rolloff_hz = torch.full((1,), 0.5), torch.full((1, 2), 4000.0)
        assert config.text is not None
        text = torch.zeros(1, config.text.max_length, config.text.dim)

    def velocity(stage: ModelConfig, cond: Conditioning) -> Tensor:
        model.config = stage
        return model.velocity(latent, t, cond)

    return Costs(
        cost(partial(velocity, f0, Conditioning(latent))),
        cost(partial(velocity, f2, Conditioning(latent, text, rolloff_hz))),
        cost(lambda: model.encode(audio)),
        cost(lambda: model.pretransform.model.decoder(latent)),
    )


def expected_s(
    costs: Costs, forwards: int, card: Card, share: float, memory_share: float
) -> tuple[float, float]:
    """Seconds of one clip in ``forwards`` of the DiT at F2, and in the VAE."""
    dit_s = forwards * costs.dit_f2.flops / (share * card.bf16_tflops * 1e12)
    vae_s = costs.vae.flops / (share * card.tf32_tflops * 1e12)
    vae_s += costs.vae.other_bytes / (memory_share * card.memory_gb_s * 1e9)
    return dit_s, vae_s


def report(config: ModelConfig, share: float, memory_share: float) -> None:
    costs = count(config)
    parts = {
        "DiT forward, F0": costs.dit_f0, "DiT forward, F2 with text": costs.dit_f2,
        "VAE encoder": costs.encoder, "VAE decoder": costs.decoder,
    }  # fmt: skip
    rows = [
        [name, f"{one.flops / 1e9:.0f}", f"{one.other_bytes / 1e9:.1f}"]
        for name, one in parts.items()
    ]
    print(f"One clip of {config.duration_s:.2f} s:\n")
    print(markdown_table(("part", "GFLOP", "GB moved by all else, float32"), rows), end="\n\n")

    branches = len(guidance_terms(1.4, 1.2, has_text=True))
    ways = [("teacher", TEACHER_STEPS * branches)]
    ways += [(f"student, {n} evaluations", n) for n in STUDENT_EVALUATIONS]
    cards = [card for card in map(card_named, (H100, A100, RTX_4090)) if card is not None]
    rows = []
    for name, forwards in ways:
        dit, vae = forwards * costs.dit_f2.flops, costs.vae.flops
        row = [name, str(forwards), f"{dit / 1e12:.2f}", f"{100 * vae / (dit + vae):.0f}"]
        for card in cards:
            dit_s, vae_s = expected_s(costs, forwards, card, share, memory_share)
            factor = config.duration_s / (dit_s + vae_s)
            row += [f"{1000 * dit_s:.1f} + {1000 * vae_s:.1f}", f"{factor:.0f}"]
        rows.append(row)
    header = ["one clip", "forwards", "DiT, TFLOP", "VAE, % of FLOP"]
    for name in (H100, A100, RTX_4090):
        short = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
        header += [f"{short}: DiT + VAE, ms", "real-time factor"]
    print(
        f"Expected, at {share:.0%} of the dense peak and {memory_share:.0%} of the bandwidth; VAE "
        "is encoder and decoder:\n"
    )
    print(markdown_table(header, rows))
    generator = torch.Generator().manual_seed(0)
    draws = [draw_step(STUDENT_STEPS, generator) for _ in range(10_000)]
    asked = statistics.mean(2 * teacher_steps(*draw, TAUGHT_STEPS) for draw in draws)
    own_gflop, taught_gflop = (n * costs.dit_f2.flops / 1e9 for n in (3, branches * asked))
    print(
        f"\nLearning from prepared latents, a clip: {own_gflop:.0f} GFLOP forward and backward; a "
        f"student's teacher adds {taught_gflop:.0f} ({asked:.1f} evaluations of {branches} "
        "branches on average)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model_config", type=Path, default=ROOT / "saga_model_config.json")
    parser.add_argument("--share", type=float, default=SHARE, help="of the dense peak")
    parser.add_argument("--memory_share", type=float, default=MEMORY_SHARE, help="of the bandwidth")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    report(load_model_config(options.model_config), options.share, options.memory_share)


if __name__ == "__main__":
    main()

"""What training needs of a GPU's memory, counted without one.

    python benchmarks/speed/memory_plan.py                  # the full model, F2
    python benchmarks/speed/memory_plan.py --model_config JSON --batch_size 8
    python benchmarks/speed/memory_plan.py --distill        # student and teacher, F2 with text

Weights, gradients, the optimiser's moments and averages are counted from the parameters' shapes;
activations by torch's memory tracker over one real forward and backward pass of fake tensors, which
have shapes and no storage, with bfloat16 autocast on the CPU's operators. Not counted are the CUDA
context (0.5 to 1 GiB), the allocator's fragmentation and NCCL's buffers. Nothing here was measured
on a GPU (`benchmarks/gpu/check.py` does).

A distillation has beside its student a frozen teacher in float32, which answers with all branches
of eq. (4) in one batch while the student's activations wait; the autoencoder is there once.
"""

# ruff: noqa: E402  (the path comes first)
import argparse
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from saga_sr.config import ModelConfig, load_model_config
from saga_sr.flow import target_velocity
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance_terms

GIB = 2**30
BITSANDBYTES_MIN_SIZE = 4096  # smaller tensors keep moments of 4 bytes
BITSANDBYTES_BLOCK = 256  # elements that share two scales of 4 bytes


def moments_bytes(model: SAGASRModel, eight_bit: bool) -> int:
    """Adam's two moments of everything that is trained."""
    total = 0
    for _, parameter in model.trainable():
        size = parameter.numel()
        if eight_bit and size >= BITSANDBYTES_MIN_SIZE:
            total += 2 * size + 8 * -(-size // BITSANDBYTES_BLOCK)
        else:
            total += 8 * size
    return total


def peak_bytes(tracker: MemTracker) -> int:
    """The tracker's peak over everything but what it was told to exist before."""
    snapshot = next(iter(tracker.get_tracker_snapshot("peak").values()))
    return sum(
        size for kind, size in snapshot.items() if getattr(kind, "name", "") in ("ACT", "TEMP")
    )


def step_bytes(config: ModelConfig, batch_size: int, checkpointing: bool) -> int:
    """Activations and bf16 copies of the weights at the peak of a training step."""
    with FakeTensorMode():
        model = SAGASRModel(config).train()
        model.activation_checkpointing = checkpointing
        model.requires_grad_(True)  # the tracker cannot do with frozen parts of a trained module
        for parameter in model.parameters():  # as in all micro-batches but the first
            parameter.grad = torch.zeros_like(parameter)
        x, cond = inputs(config, batch_size)
        tracker = MemTracker()
        tracker.track_external(model)
        with tracker:
            with torch.autocast("cpu", torch.bfloat16):
                velocity = model.velocity(x, torch.rand(batch_size), cond)
                loss = (velocity.float() - target_velocity(x, cond.lr_latent)).square().mean()
            loss.backward()
    return peak_bytes(tracker)


def teacher_bytes(config: ModelConfig, batch_size: int) -> int:
    """Activations of a frozen teacher that answers, at their peak; autocast keeps no copies of
    frozen weights."""
    with FakeTensorMode(), torch.no_grad():
        model = SAGASRModel(config).eval().requires_grad_(True)  # see `step_bytes`
        x, cond = inputs(config, batch_size)
        tracker = MemTracker()
        tracker.track_external(model)
        with tracker, torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            model.velocity(x, torch.rand(batch_size), cond)
    return peak_bytes(tracker)


def inputs(config: ModelConfig, batch_size: int) -> tuple[torch.Tensor, Conditioning]:
    """A state [B, D, L] and the conditions of the config's stage."""
    shape, text = (batch_size, config.latent_dim, config.latent_length), None
    if config.stage.text and config.text is not None:
        text = torch.randn(batch_size, config.text.max_length, config.text.dim)
    rolloff_hz = torch.rand(batch_size, 2) * 1e4 if config.stage.rolloff else None
    return torch.randn(shape), Conditioning(torch.randn(shape), text, rolloff_hz)


def codec_bytes(config: ModelConfig, decode: bool) -> int:
    """The frozen autoencoder's activations for one clip, in bfloat16 autocast."""
    with FakeTensorMode(), torch.no_grad():
        model = SAGASRModel(config).eval().requires_grad_(True)  # see `step_bytes`
        tracker = MemTracker()
        tracker.track_external(model)
        with tracker, torch.autocast("cpu", torch.bfloat16):
            if decode:
                model.decode(torch.randn(1, config.latent_dim, config.latent_length))
            else:
                model.encode(torch.randn(1, config.audio_channels, config.sample_size))
    return peak_bytes(tracker)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model_config", type=Path, default=ROOT / "saga_model_config.json")
    parser.add_argument("--batch_size", type=int, default=8, help="per process and micro-batch")
    parser.add_argument("--distill", action="store_true", help="with a teacher in memory")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    config = load_model_config(options.model_config)
    config = config.replacing("model.diffusion.compute_rolloff", True)
    if options.distill:
        config = config.replacing("model.diffusion.cross_attention_cond_ids", ["prompt"])
    with torch.device("meta"):
        model = SAGASRModel(config)
    trained = sum(p.numel() for _, p in model.trainable())
    frozen = sum(p.numel() for p in model.parameters()) - trained
    print(f"{options.model_config.name}: {trained:,} trained and {frozen:,} frozen parameters")
    size = options.batch_size
    weights, gradients, averages = 4 * (trained + frozen), 4 * trained, 4 * trained
    teacher = 4 * trained if options.distill else 0
    steps = {on: step_bytes(config, size, on) for on in (False, True)}
    if options.distill:
        branches = len(guidance_terms(1.4, 1.2, has_text=True))
        answering = teacher_bytes(config, branches * size)
        print(f"the teacher's activations, {branches} x {size} items: {answering / GIB:.2f} GiB")
        steps = {on: one + answering for on, one in steps.items()}
    print(f"GiB, batch {size}, {config.sample_size} samples a clip, bfloat16 autocast")
    print(
        "checkpointing optimizer  averages | weights teacher  grads moments averages activations   "
        "total"
    )
    for checkpointing, eight_bit, on_cpu in (
        (False, False, False), (True, False, False), (False, False, True), (False, True, False),
        (False, True, True), (True, True, True),
    ):  # fmt: skip
        moments = moments_bytes(model, eight_bit)
        parts = (
            weights, teacher, gradients, moments, 0 if on_cpu else averages, steps[checkpointing]
        )  # fmt: skip
        print(
            f"{'yes' if checkpointing else 'no':13s} {'adamw8bit' if eight_bit else 'adamw':10s} "
            f"{'CPU' if on_cpu else 'GPU':8s} | " + "".join(f"{b / GIB:8.2f}" for b in parts)
            + f"{sum(parts) / GIB:12.2f}", flush=True,
        )  # fmt: skip
    if options.distill:  # as without
        return 0
    encoding, decoding = (codec_bytes(config, decode) / GIB for decode in (False, True))
    print(
        f"the autoencoder needs {encoding:.2f} to encode a clip (two for a pair) and {decoding:.2f}"
    )
    print("one, for each clip of a batch at once; not while the DiT trains")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

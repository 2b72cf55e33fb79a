"""The full model of a check, with random weights: time and memory do not depend on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.machine import Machine
from saga_sr.config import ModelConfig
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.training.flags import parse_options
from saga_sr.training.module import Batch
from saga_sr.weights import fold_weight_norm
from train_saga_sr import SAGASRTrainer

ROOT = Path(__file__).resolve().parents[2]


def awaken(model: SAGASRModel) -> None:
    """Give layers that start at zero small values: their zeros would hide all that is before."""
    for name, parameter in model.named_parameters():
        if not name.startswith("pretransform.") and not parameter.any():
            nn.init.normal_(parameter, std=0.02)


def built(config: ModelConfig, machine: Machine) -> SAGASRModel:
    """In evaluation mode, on the device."""
    torch.manual_seed(0)
    with machine.device:
        model = SAGASRModel(config)
    fold_weight_norm(model)
    awaken(model)
    return model.eval()


def conditions(config: ModelConfig, machine: Machine, count: int) -> tuple[Tensor, Conditioning]:
    """Noise [count, D, L] and every condition of F2."""
    assert config.text is not None
    generator = torch.Generator(machine.device).manual_seed(1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=machine.device)

    latent = randn(count, config.latent_dim, config.latent_length)
    text = randn(count, config.text.max_length, config.text.dim)
    rolloff_hz = torch.tensor([[4000.0, 16_000.0]], device=machine.device).expand(count, -1)
    return randn(*latent.shape), Conditioning(latent, text, rolloff_hz)


class RandomText:
    """Embeddings as long and wide as T5's, which is not carried along."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        assert config.text is not None
        self.shape, self.device = (config.text.max_length, config.text.dim), device

    def encode(self, texts: Sequence[str]) -> Tensor:
        """[B, N, width]"""
        return torch.ones(len(texts), *self.shape, device=self.device)


class Training:
    """The script's own trainer with a batch of prepared latents, without Lightning's loop.

    Args:
        config: of F2.
        machine: where.
        clips: of a micro-batch.
        flags: of train_saga_sr.py, beside the folders.
    """

    def __init__(self, config: ModelConfig, machine: Machine, clips: int, *flags: str) -> None:
        paths = ["--train_dir", str(ROOT), "--model_config", str(ROOT / "saga_model_config.json")]
        self.machine, self.flags = machine, flags
        options = parse_options([*paths, *flags], doc="\n")
        torch.manual_seed(0)
        text: Any = RandomText(config, machine.device)
        with machine.device:
            module = SAGASRTrainer(config, options, text)
        fold_weight_norm(module.model)
        awaken(module.model)
        if options.ema_on_cpu:  # where they are made in a run, which moves to the GPU afterwards
            averages = module.ema.averages
            module.ema.averages = {name: one.cpu() for name, one in averages.items()}
        self.module = module.to(machine.device).train()
        self.module.model.pretransform.eval()
        self.optimizer: Any = self.module.configure_optimizers()["optimizer"]
        self.batch = self._batch(config, clips)
        self.steps = 0

    def _batch(self, config: ModelConfig, clips: int) -> Batch:
        hr, cond = conditions(config, self.machine, clips)
        metadata = [
            {"draw": draw, "audio_path": "made up", "prompt": "noise", "lr_latent": lr,
             "rolloff_low": 4000.0, "rolloff_high": 16_000.0, "lr_passband_hz": 4000.0}
            for draw, lr in enumerate(cond.lr_latent)
        ]  # fmt: skip
        return hr, metadata

    def micro_step(self, bf16: bool = True) -> Tensor:
        """Forward and backward of one micro-batch; returns the loss."""
        with self.machine.bf16(bf16):
            loss = self.module.training_step(self.batch, 0)
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        """What follows the last micro-batch: clipping, AdamW, averages."""
        module = self.module
        module.configure_gradient_clipping(
            self.optimizer, module.config.training.gradient_clip_norm
        )
        self.optimizer.step()
        self.steps += 1
        module.ema.update(self.steps)

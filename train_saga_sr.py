#!/usr/bin/env python
"""Train SAGA-SR.

The three stages of the plan, full model, one GPU; each may start from the one before (--init_from):
  F0: the latent of the low-passed audio alone
    python train_saga_sr.py --train_dir /data/train --val_dir /data/val \\
        --model_config saga_model_config.json --pretrained_ckpt stabilityai/stable-audio-open-1.0 \\
        --batch_size 2 --learning_rate 1e-5 --max_steps 26000 --disable_caption
  F1: text too; with "prompt" in cross_attention_cond_ids (--disable_caption: transcripts alone)
  F2: both roll-offs too; as F1 and  --compute_rolloff
A student that does in one to four steps what an exported model does in a hundred:
    the command that trained the model, without what gave it its weights, and
        --model_config EXPORT/config.json --distill_from EXPORT  (--max_steps 2000 or more)
One laptop, no downloaded weights (LR latent and roll-offs, without text):
    python train_saga_sr.py --train_dir corpus/train --val_dir corpus/val \\
        --model_config saga_model_config_demo.json --compute_rolloff --batch_size 8 --max_steps 1000
Go on after a stop:
    the same command and  --checkpoint last
Two nodes of eight GPUs: the same command on each under torchrun, and  --devices 8 --num_nodes 2
"""

# ruff: noqa: E402  (flags are read before torch is imported)

from saga_sr.training.flags import options_of

OPTIONS = options_of(__name__, __doc__)

import argparse
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor

from saga_sr.flow import interpolate, sample_timesteps, velocity_loss
from saga_sr.lowfreq import low_frequency_replace
from saga_sr.model import Conditioning
from saga_sr.restore import restore
from saga_sr.support.errors import run_cli
from saga_sr.support.randomness import torch_generator
from saga_sr.training import validation
from saga_sr.training.distillation import learn_from
from saga_sr.training.module import Batch, TrainingModule
from saga_sr.training.run import run


class SAGASRTrainer(TrainingModule):
    """Rectified-flow training of a `SAGASRModel`, and its validation."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        z_h, cond = self.encode_batch(batch)
        cond = self.drop_target_rolloff(batch, cond)
        t, noise, drop_lr, drop_text = self.draw(batch, like=z_h)
        if self.teacher is not None:  # --distill_from
            return learn_from(self.teacher, self, batch, (z_h, cond, noise, drop_text))
        frame = cond.frame
        hr_end_hz = self._from_metadata(batch[1], "hr_end_hz", default=inf)  # inf: asked by none
        y = frame.enter(z_h)  # the paper's y is z_h
        x_t = interpolate(y, noise, t)
        velocity = self.model.velocity(x_t, t, cond, drop_lr, drop_text)
        weight = self.model.family.weight(frame, x_t, t, hr_end_hz)
        return self.counted(batch, velocity_loss(velocity, y, noise, weight).mean())

    def encode_batch(self, batch: Batch) -> tuple[Tensor, Conditioning]:
        """HR latent [B, D, L] and the conditions, HR and LR encoded in one go."""
        hr, metadata = batch
        with torch.no_grad():
            if "lr_latent" in metadata[0]:  # prepared by saga_sr.pre_encode
                hr_latent, lr_latent = hr, torch.stack([m["lr_latent"] for m in metadata])
            else:
                lr = torch.stack([item["lr_audio"] for item in metadata])
                hr_latent, lr_latent = self.model.encode(torch.cat([hr, lr])).float().chunk(2)
        text, rolloff_hz = None, None
        if self.text_encoder is not None:
            text = self.text_encoder.encode([m["prompt"] for m in metadata]).to(hr_latent)
        if self.config.stage.rolloff:
            pairs = [[item["rolloff_low"], item["rolloff_high"]] for item in metadata]
            rolloff_hz = torch.tensor(pairs, device=self.device)
        passband_hz = self._from_metadata(metadata, "lr_passband_hz")
        cond = Conditioning(lr_latent, text, rolloff_hz, passband_hz)
        return hr_latent, replace(cond, frame=self.model.frame(cond))

    def draw(self, batch: Batch, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Time [B], noise [B, D, L] and condition dropout [B], [B]: functions of (seed, draw)."""
        sampler, dropout = self.config.training.timestep_sampler, self.config.training.dropout
        times, noises, uniforms = [], [], []
        for item in batch[1]:
            generator = torch_generator("train", self.options.seed, item["draw"])
            times.append(sample_timesteps(1, sampler, generator))
            uniforms.append(torch.rand(1, generator=generator))
            noises.append(torch.randn(like.shape[1:], generator=generator))
        u = torch.cat(uniforms)
        both, text = dropout.both_prob, dropout.both_prob + dropout.lr_prob
        drop_lr = u < text
        drop_text = (u < both) | ((u >= text) & (u < text + dropout.text_prob))
        device = like.device
        t, noise = torch.cat(times).to(device), torch.stack(noises).to(device)
        return t, noise, drop_lr.to(device), drop_text.to(device)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        hr, metadata = batch
        name, clips = self.val_names[dataloader_idx], [item["draw"] for item in metadata]
        hr_latent, cond = self.encode_batch(batch)
        hr_end_hz = self._from_metadata(metadata, "hr_end_hz")
        values = validation.flow_losses(self.model, hr_latent, cond, hr_end_hz, clips)
        lr = torch.stack([item["lr_audio"] for item in metadata])
        cutoff_hz = self._from_metadata(metadata, "lr_cutoff_hz")
        measure = partial(
            validation.audio_metrics,
            truth=hr,
            cutoff_hz=cutoff_hz,
            end_hz=hr_end_hz,
            sample_rate=self.config.sample_rate,
        )
        restored = generated = self._restore(cond, clips)
        if not self.options.disable_val_lowfreq_replace:
            restored = self._low_frequency_replace(generated, lr, self._plan_cutoff_hz(metadata))
        if self.config.stage.rolloff:  # the common rule knows no true roll-off
            default = self.model.condition(lr, cond.text, passband_hz=cond.passband_hz)
            generated = self._restore(default, clips)
        passband_hz = self._from_metadata(metadata, "lr_passband_hz")
        common = self._low_frequency_replace(generated, lr, passband_hz)
        values |= measure(restored)
        values |= validation.suffixed(measure(common), "common")
        values |= validation.suffixed(measure(lr), "input")
        self._means[name].add(clips, values, [item.get("category", "") for item in metadata])
        self._write_samples(name, clips, {"LR": lr, "prediction": restored, "HR": hr}, metadata)

    def _restore(self, cond: Conditioning, clips: list[int]) -> Tensor:
        """Sample and decode fixed clips from their fixed noise, without the crossover."""
        noise = validation.clip_noise(self.model, clips, "val-sample")
        sampling = self.config.sampling
        if self.trainer.sanity_checking or self.options.fast_dev_run:
            sampling = sampling.model_copy(update={"num_steps": 1, "emulate_linear_steps": 1})
        return restore(self.model, cond, noise, sampling)

    def _plan_cutoff_hz(self, metadata: list[dict[str, Any]]) -> Tensor:
        """Where replacement ends by the user's plan: f_l where it is computed, else the low-pass's
        passband (the soft crossover must end where the input is still true)."""
        key = "rolloff_low" if self.config.stage.rolloff else "lr_passband_hz"
        return self._from_metadata(metadata, key)

    def _low_frequency_replace(
        self, pred_audio: Tensor, lr_audio: Tensor, cutoff_hz: Tensor
    ) -> Tensor:
        return low_frequency_replace(pred_audio, lr_audio, cutoff_hz, self.config.sample_rate)


def main(options: argparse.Namespace) -> int:
    """Train as ``options`` say; returns the exit code."""
    return run(options, SAGASRTrainer)


if __name__ == "__main__":
    raise SystemExit(run_cli(lambda: main(OPTIONS)))

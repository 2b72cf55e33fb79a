#!/usr/bin/env python
"""Train SAGA-SR.

One laptop, no downloaded weights:
    python train_saga_sr.py --train_dir corpus/train --val_dir corpus/val \
        --model_config saga_model_config_demo.json --compute_rolloff --batch_size 8 --max_steps 1000
F0, full model, one GPU (F1: "prompt" in cross_attention_cond_ids; F2: --compute_rolloff):
    python train_saga_sr.py --train_dir /data/train --val_dir /data/val \
        --model_config saga_model_config.json --pretrained_ckpt stabilityai/stable-audio-open-1.0 \
        --batch_size 2 --learning_rate 1e-5 --max_steps 26000 --disable_caption
Go on after a stop:
    the same command and  --checkpoint last
Two nodes of eight GPUs: the same command on each under torchrun, and  --devices 8 --num_nodes 2
"""

# ruff: noqa: E402  (flags are read before torch is imported)

import argparse
import logging
import math
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from saga_sr.errors import UserError, run_cli
from saga_sr.training_flags import parse_options

OPTIONS: argparse.Namespace | None = None
if __name__ == "__main__":

    def _read_flags() -> None:
        global OPTIONS
        OPTIONS = parse_options(doc=__doc__)

    if code := run_cli(_read_flags):
        raise SystemExit(code)

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from saga_sr import faults, run_folder, samples, validation, weights
from saga_sr.config import InverseLR, ModelConfig, load_model_config, untrained_guidance
from saga_sr.dataset import DrawSampler, FixedClips, collate, degrade
from saga_sr.ema import EMA
from saga_sr.flow import interpolate, sample_timesteps, velocity_loss
from saga_sr.lowfreq import low_frequency_replace
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.randomness import torch_generator
from saga_sr.restore import condition, generate
from saga_sr.sharding import ShardedStrategy, is_sharded, shard, whole, whole_state
from saga_sr.text import TextEncoder
from saga_sr.training_data import TrainingData, open_training_data, prepare_text

Batch = tuple[Tensor, list[dict[str, Any]]]
say = rank_zero_only(print)

GRAD_NORM_HISTORY = 20


class SAGASRTrainer(L.LightningModule):
    """Rectified-flow training of a `SAGASRModel`, and its validation.

    Args:
        config: the resolved model config.
        options: the flags.
        text_encoder: needed where the config's stage has text.
    """

    def __init__(
        self,
        config: ModelConfig,
        options: argparse.Namespace,
        text_encoder: TextEncoder | None = None,
    ) -> None:
        super().__init__()
        self.config, self.options, self.text_encoder = config, options, text_encoder
        self.model = SAGASRModel(config)
        self.model.activation_checkpointing = options.activation_checkpointing
        if options.train_only:
            self.model.freeze_all_but(options.train_only)
        if options.compile:
            self.model.dit.transformer.compile()
        if options.detect_anomaly:
            faults.watch_for_non_finite(self.model)
        self.ema = EMA(self.model.trainable(), config.training.ema, options.ema_on_cpu)
        self.data_fingerprint = ""
        self.val_names: list[str] = []
        self.last_means: dict[str, float] = {}
        self.validation_is_due = False
        self._grad_norms: deque[float] = deque(maxlen=GRAD_NORM_HISTORY)
        self._micro_losses: list[Tensor] = []
        self._last_step_time: float | None = None

    # --- one training step ----------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Low-pass what the workers left to the device, outside autocast."""
        hr, metadata = batch
        if "lowpass" in metadata[0]:
            metadata = degrade(hr, metadata, self.config.sample_rate)
        return hr, metadata

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        hr_latent, cond = self.encode_batch(batch)
        draws, content = [item["draw"] for item in batch[1]], self._content(batch[1])
        prior = self.model.prior(self._half_untold(cond, draws))
        losses = []
        if self.options.train_only != "prior":
            losses.append(self.flow_loss(hr_latent, replace(cond, prior=prior), content, draws))
        if self.options.train_only != "flow":
            losses.append(self.model.prior_loss(prior, cond.lr_latent, hr_latent, content))
        self._stop_if_not_finite("loss", losses[0], [item["audio_path"] for item in batch[1]])
        self._micro_losses.append(losses[0].detach())
        return torch.stack(losses).sum()

    def flow_loss(
        self, hr_latent: Tensor, cond: Conditioning, content: Tensor, draws: list[int]
    ) -> Tensor:
        """Squared velocity error from the prior to the HR latent [B, D, L], a scalar."""
        t, noise, drop_lr, drop_text = self.draw_training_noise(draws, hr_latent)
        prior = self.model.prior(cond)
        start = prior.start(noise)
        x_t = interpolate(hr_latent, start, t)
        velocity = self.model.velocity(x_t, t, cond, drop_lr, drop_text)
        unit = prior.error_unit(hr_latent)
        return velocity_loss(velocity, hr_latent, start, unit, content).mean()

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
        return hr_latent, Conditioning(lr_latent, text, rolloff_hz)

    def _content(self, metadata: list[dict[str, Any]]) -> Tensor:
        """Where the HR latents are targets (`saga_sr.pretransform.Pretransform.content`)."""
        return self.model.pretransform.content(self._from_metadata(metadata, "hr_end_hz"))

    def _half_untold(self, cond: Conditioning, draws: list[int]) -> Conditioning:
        """Every other draw without the target roll-off: the prior learns to do without it too."""
        if cond.rolloff_hz is None:
            return cond
        even = torch.tensor([[False, draw % 2 == 0] for draw in draws], device=self.device)
        return replace(cond, rolloff_hz=cond.rolloff_hz.masked_fill(even, torch.nan))

    def draw_training_noise(
        self, draws: list[int], like: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Time [B], noise [B, D, L] and condition dropout [B], [B]: functions of (seed, draw)."""
        sampler, dropout = self.config.training.timestep_sampler, self.config.training.dropout
        times, noises, uniforms = [], [], []
        for draw in draws:
            generator = torch_generator("train", self.options.seed, draw)
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

    # --- optimisation ---------------------------------------------------------------------------

    def configure_model(self) -> None:
        """With --strategy fsdp each process keeps a share of what is trained."""
        if self.options.strategy == "fsdp" and not is_sharded(self.model):
            assert self.device_mesh is not None
            shard(self.model, self.device_mesh["data_parallel"])
            self.ema = EMA(self.model.trainable(), self.config.training.ema)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.config.training
        optimizer = adamw(self.options.optimizer)(
            [parameter for _, parameter in self.model.trainable()],
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        rate = partial(
            learning_rate_factor,
            settings.lr_schedule,
            settings.learning_rate,
            self.options.max_steps,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of parts that share no loss, log that of all, stop if it is not finite."""
        limit = gradient_clip_val or math.inf
        norms = [
            whole(torch.nn.utils.clip_grad_norm_(part, limit))
            for part in self.model.trained_apart()
        ]
        norm = torch.stack(norms).norm()
        self._stop_if_not_finite("gradient norm", norm)
        self._grad_norms.append(float(norm))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.config.training.use_ema:
            self.ema.update(self.global_step + 1)
        self._log_step()

    def _log_step(self) -> None:
        """The numbers of an optimiser step, before its checkpoint; the loss is the mean over all
        its clips, those of other micro-batches and processes included."""
        loss = self.trainer.strategy.reduce(torch.stack(self._micro_losses).mean())
        self._micro_losses.clear()
        now = time.monotonic()
        values = {
            "train/loss": float(loss),
            "train/grad_norm": self._grad_norms[-1],
            "train/lr": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        if self._last_step_time is not None:
            values["train/clips_per_s"] = self.global_batch / (now - self._last_step_time)
        self._last_step_time = now
        self._log_numbers(values, self.global_step, prog_bar=True)

    def _log_numbers(self, values: dict[str, float], step: int, prog_bar: bool = False) -> None:
        """Write numbers that are the same on all processes, at once; a restart depends on it."""
        self.log_dict(values, prog_bar=prog_bar, logger=False)
        for logger in self.loggers:
            logger.log_metrics(values, step)

    def _stop_if_not_finite(self, name: str, value: Tensor, paths: Sequence[str] = ()) -> None:
        if torch.isfinite(value):
            return
        norms = ", ".join(f"{norm:.3g}" for norm in self._grad_norms) or "none yet"
        where = [f"clip {path}" for path in paths]
        raise UserError.listing(
            f"the {name} is {float(value)} at step {self.global_step}; training stops, and the "
            f"last checkpoint is from before. Try a lower --learning_rate, --precision 32-true, or "
            f"--detect_anomaly to see where it arises. Gradient norms before: {norms}",
            where,
        )

    # --- validation -----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """From here to `leave_validation` the parameters are the averaged ones."""
        self._averaged = ExitStack()
        if self.config.training.use_ema:
            self._averaged.enter_context(self.ema.applied())
        self._means = {name: validation.MeanOverClips() for name in self.val_names}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        hr, metadata = batch
        name, clips = self.val_names[dataloader_idx], [item["draw"] for item in metadata]
        hr_latent, cond = self.encode_batch(batch)
        values = validation.flow_losses(self.model, hr_latent, cond, self._content(metadata), clips)
        lr = torch.stack([item["lr_audio"] for item in metadata])
        cutoff_hz = self._from_metadata(metadata, "lr_cutoff_hz")
        measure = partial(
            validation.audio_metrics,
            truth=hr,
            cutoff_hz=cutoff_hz,
            end_hz=self._from_metadata(metadata, "hr_end_hz"),
            sample_rate=self.config.sample_rate,
        )
        restored = generated = self._restore(cond, clips)
        if not self.options.disable_val_lowfreq_replace:
            restored = self._low_frequency_replace(generated, lr, self._plan_cutoff_hz(metadata))
        if self.config.stage.rolloff:  # the common rule knows no true roll-off
            default = condition(self.model, lr, cond.text)
            generated = self._restore(default, clips)
        passband_hz = self._from_metadata(metadata, "lr_passband_hz")
        common = self._low_frequency_replace(generated, lr, passband_hz)
        values |= measure(restored)
        values |= validation.suffixed(measure(common), "common")
        values |= validation.suffixed(measure(lr), "input")
        self._means[name].add(clips, values)
        self._write_samples(name, clips, {"LR": lr, "prediction": restored, "HR": hr}, cutoff_hz)

    def leave_validation(self) -> None:
        """The parameters are again those that are trained."""
        self._averaged.close()

    def on_validation_epoch_end(self) -> None:
        self.leave_validation()
        if self.trainer.sanity_checking:
            return
        for name, means in self._means.items():
            values = {f"{name}/{metric}": value for metric, value in means.means().items()}
            self._log_numbers(values, self.global_step - 1)  # beside the step that it follows
            self.last_means |= values

    def _restore(self, cond: Conditioning, clips: list[int]) -> Tensor:
        """Sample and decode fixed clips from their fixed noise, without the crossover."""
        noise = validation.clip_noise(self.model, clips, "val-sample").to(self.device)
        sampling = self.config.sampling
        if self.trainer.sanity_checking or self.options.fast_dev_run:
            sampling = sampling.model_copy(update={"num_steps": 1, "emulate_linear_steps": 1})
        return self.model.decode(generate(self.model, cond, noise, sampling)).float()

    def _from_metadata(self, metadata: list[dict[str, Any]], key: str) -> Tensor:
        return torch.tensor([float(item[key]) for item in metadata], device=self.device)

    def _plan_cutoff_hz(self, metadata: list[dict[str, Any]]) -> Tensor:
        """Where replacement ends by the user's plan: f_l where it is computed, else the low-pass's
        passband (the soft crossover must end where the input is still true)."""
        key = "rolloff_low" if self.config.stage.rolloff else "lr_passband_hz"
        return self._from_metadata(metadata, key)

    def _low_frequency_replace(
        self, pred_audio: Tensor, lr_audio: Tensor, cutoff_hz: Tensor
    ) -> Tensor:
        return low_frequency_replace(pred_audio, lr_audio, cutoff_hz, self.config.sample_rate)

    def _write_samples(
        self, name: str, clips: list[int], audio: dict[str, Tensor], cutoff_hz: Tensor
    ) -> None:
        """WAVs and a picture of the first clips, into the output folder and TensorBoard."""
        if self.trainer.sanity_checking or self.options.fast_dev_run:
            return
        if not self.trainer.is_global_zero:  # it writes the first clips of its share
            return
        for row, clip in enumerate(clips):
            if clip >= self.options.val_num_pictures * self.trainer.world_size:
                continue
            folder = self.options.output_dir / "samples" / f"step={self.global_step:08d}"
            panels = {label: batch[row].float().cpu() for label, batch in audio.items()}
            picture = samples.write_clip(
                folder, f"{name}-{clip:02d}", panels, self.config.sample_rate, float(cutoff_hz[row])
            )
            for logger in self.loggers:
                if isinstance(logger, TensorBoardLogger):
                    tag = f"{name}/clip-{clip:02d}"
                    logger.experiment.add_image(tag, picture, self.global_step, dataformats="HWC")

    # --- checkpoints ----------------------------------------------------------------------------

    @property
    def global_batch(self) -> int:
        """Clips per optimiser step over all processes."""
        options = self.options
        processes = options.devices * options.num_nodes
        return options.batch_size * options.accumulate_grad_batches * processes

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with its checkpoint (see `run_folder.refuse_changes`)."""
        return {
            "options": run_folder.plain_options(self.options),
            "config": self.config.model_dump(mode="json"),
            "global_batch": self.global_batch,
            "data": self.data_fingerprint,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Only what is trained: the frozen VAE is 0.6 GB that every checkpoint would repeat."""
        trained = {f"model.{name}" for name, _ in self.model.trainable()}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {n: v for n, v in state.items() if n in trained}
        checkpoint["saga_sr"] = self.identity() | {"ema": self.ema.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.ema.load_state_dict(checkpoint["saga_sr"]["ema"])
        checkpoint["state_dict"] = self.state_dict() | checkpoint["state_dict"]
        # All checkpoints look to Lightning as if taken at the end of a step's last micro-batch,
        # whose number may have changed with the number of processes.
        loops = checkpoint["loops"]["fit_loop"]
        done = checkpoint["global_step"] * self.options.accumulate_grad_batches
        trained = loops["epoch_loop.batch_progress"]
        for counts in (trained["total"], trained["current"]):
            counts.update(ready=done, started=done, processed=done, completed=done - 1)
        # A checkpoint goes before the validation of its step; Lightning takes this for one begun.
        due = int(self.validation_is_due)
        validated = loops["epoch_loop.val_loop.batch_progress"]
        for counts in (validated["total"], validated["current"]):
            counts.update(ready=due, started=due, processed=0, completed=0)


def adamw(name: str) -> Callable[..., torch.optim.Optimizer]:
    """AdamW with its two moments in float32, or in one byte each."""
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # an extra

        return AdamW8bit
    return partial(torch.optim.AdamW, fused=True)


def learning_rate_factor(
    schedule: InverseLR, learning_rate: float, max_steps: int, step: int
) -> float:
    """InverseLR as a factor of the base rate after ``step`` steps, with the optional cooldown.

    stable-audio-tools' own class raises on torch 2.11; its formula stands in `config.InverseLR`.
    """
    warmup = 1 - schedule.warmup ** (step + 1)
    decay = (1 + step / schedule.inv_gamma) ** -schedule.power
    factor = warmup * max(schedule.final_lr / learning_rate, decay)
    cooldown_steps = schedule.cooldown_fraction * max_steps
    if cooldown_steps:
        factor *= min(1.0, max(0, max_steps - step) / cooldown_steps)
    return factor


# --- what a run is put together from ------------------------------------------------------------


def resolve_config(options: argparse.Namespace) -> ModelConfig:
    """The JSON with the flags on top, validated again."""
    config = load_model_config(options.model_config)
    if options.val_num_steps is not None:
        config = config.with_num_steps(options.val_num_steps)
    overrides = {
        "training.learning_rate": options.learning_rate,
        "sampling.emulate_linear_steps": options.val_emulate_linear_steps,
        "sampling.guidance_acoustic": options.guidance_acoustic,
        "sampling.guidance_text": options.guidance_text,
        "model.diffusion.compute_rolloff": options.compute_rolloff or None,
    }
    for path, value in overrides.items():
        if value is not None:
            config = config.replacing(path, value)
    problems = untrained_guidance(config)
    if options.train_only and config.model.diffusion.prior_width is None:
        problems.append(
            f"--train_only {options.train_only}: the config has no prior "
            "(model.diffusion.prior_width), so there is one part only"
        )
    if options.val_cutoff_hz >= config.sample_rate / 2:
        problems.append(f"--val_cutoff_hz is {options.val_cutoff_hz:g}, at or above Nyquist")
    if problems:
        raise UserError.listing("config and flags do not fit", problems)
    return config


def load_weights(module: SAGASRTrainer, options: argparse.Namespace) -> None:
    """Starting weights by the flags, and the refusal of a random autoencoder."""
    model, has_pretransform = module.model, not module.model.pretransform.needs_weights
    if options.pretrained_ckpt:
        report = weights.load_stable_audio(model, options.pretrained_ckpt)
        say(report)
        has_pretransform |= any(name.startswith("pretransform.") for name in report.loaded)
    if options.pretransform_ckpt:
        say(weights.load_pretransform(model, options.pretransform_ckpt))
        has_pretransform = True
    if options.init_from:
        say(weights.load_stage(model, options.init_from))
        has_pretransform = True
    if not has_pretransform and not options.allow_random_pretransform:
        raise UserError(
            "the config's autoencoder has no weights: training on a random one learns nothing. "
            "Give --pretransform_ckpt (a VAE), --pretrained_ckpt (Stable Audio Open, which holds "
            "one), or a config without one (saga_model_config_demo.json)"
        )
    weights.fold_weight_norm(model)
    module.ema = EMA(model.trainable(), module.config.training.ema, options.ema_on_cpu)


def train_loader(
    data: TrainingData, options: argparse.Namespace, trainer: L.Trainer, first_draw: int
) -> DataLoader:
    sampler = DrawSampler(options.batch_size, first_draw, trainer.global_rank, trainer.world_size)
    return DataLoader(
        data.draws,
        batch_sampler=sampler,
        num_workers=options.num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=options.num_workers > 0,
        worker_init_fn=_start_worker,
        timeout=faults.DATA_TIMEOUT_S if options.num_workers else 0,
    )


def _start_worker(worker: int) -> None:
    """One thread, since more only get in the others' way; and SLURM's SIGTERM to every process of
    a job is for the trainer to answer: without its workers it could not finish the step."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def val_loader(clips: FixedClips, options: argparse.Namespace, trainer: L.Trainer) -> DataLoader:
    """Every process validates equally many clips, so that they stay in step; the few that come
    twice are counted once by `MeanOverClips`."""
    rank, processes = trainer.global_rank, trainer.world_size
    share = [(rank + n * processes) % len(clips) for n in range(-(-len(clips) // processes))]
    return DataLoader(Subset(clips, share), batch_size=options.batch_size, collate_fn=collate)


def build_loggers(options: argparse.Namespace, first_step: int) -> list[Logger]:
    folder = options.output_dir
    loggers: list[Logger] = [run_folder.MetricsCSV(folder / "metrics.csv", first_step)]
    if options.logger == "tensorboard":
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    if options.logger == "wandb":
        try:
            loggers.append(WandbLogger(save_dir=folder, project="saga-sr"))
        except ModuleNotFoundError as error:
            raise UserError("--logger wandb: not installed; pip install wandb") from error
    return loggers


class StepBar(TQDMProgressBar):
    """Lightning's bar, which after a resume knows neither where the run begins nor its end."""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        super().on_train_start()
        self._count_from(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self._count_from(trainer)

    def _count_from(self, trainer: L.Trainer) -> None:
        bar, accumulated = self.train_progress_bar, trainer.accumulate_grad_batches
        bar.set_description("Training")
        bar.total = trainer.max_steps * accumulated
        bar.n = bar.initial = trainer.global_step * accumulated


def build_trainer(
    options: argparse.Namespace, config: ModelConfig, validated: bool, first_step: int
) -> L.Trainer:
    folder = run_folder.checkpoint_folder(options.output_dir)
    newest = run_folder.NewestCheckpoints(
        folder, options.checkpoint_every_n_steps, options.keep_checkpoints
    )
    callbacks: list[Callback] = [newest, StepBar(refresh_rate=1)]
    if options.val_dir and options.val_num_clips:
        callbacks.append(
            ModelCheckpoint(
                folder,
                filename="best",
                monitor="val/lsd",
                mode="min",
                save_top_k=1,
                enable_version_counter=False,
            )
        )
    every = min(options.val_every_n_steps, options.max_steps) * options.accumulate_grad_batches
    on_gpu = torch.cuda.is_available() and options.accelerator in ("auto", "gpu")
    automatic = "bf16-mixed" if on_gpu else "32-true"
    precision: Any = automatic if options.precision == "auto" else options.precision
    processes = options.devices * options.num_nodes
    plugins: list[Any] = [run_folder.AtomicCheckpointIO()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Lightning's own requeueing resumes behind the back of --checkpoint.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return L.Trainer(
        default_root_dir=options.output_dir,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=ShardedStrategy(processes) if options.strategy == "fsdp" else options.strategy,
        precision=precision,
        max_steps=options.max_steps,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=config.training.gradient_clip_norm,
        val_check_interval=every if validated else None,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if validated else 0,
        num_sanity_val_steps=1,
        log_every_n_steps=1,
        logger=build_loggers(options, first_step),
        callbacks=callbacks,
        plugins=plugins,
        use_distributed_sampler=False,
        enable_model_summary=False,
        detect_anomaly=options.detect_anomaly,
        fast_dev_run=options.fast_dev_run,
    )


def export(module: SAGASRTrainer) -> Path:
    """Write the averaged weights as a folder that `SAGASRModel.from_pretrained` loads."""
    averaged = module.ema.applied() if module.config.training.use_ema else nullcontext()
    model, folder = module.model, module.options.output_dir / "export"
    with averaged:
        if not is_sharded(model):
            return model.save_pretrained(folder)
        state = whole_state(model)
    if module.trainer.is_global_zero:
        model = SAGASRModel(module.config)
        weights.fold_weight_norm(model)
        model.load_state_dict(state)
        model.save_pretrained(folder)
    return folder


def summarise(module: SAGASRTrainer, exported: Path) -> None:
    """What was reached, and where it lies."""
    folder, means = module.options.output_dir, module.last_means
    say(f"\nTrained {module.config.stage} for {module.global_step} steps.")
    for name in module.val_names:
        for metric in ("lsd", "lsd_hf", "high_band_error_db", "si_sdr"):
            if (key := f"{name}/{metric}") in means:
                say(f"  {key:32s} {means[key]:8.3f}   (input: {means[key + '_input']:8.3f})")
    say(f"  metrics      {folder / 'metrics.csv'}\n  checkpoints  {folder / 'checkpoints'}")
    say(f"  samples      {folder / 'samples'}\n  export       {exported}")


def build_text_encoder(
    options: argparse.Namespace, config: ModelConfig, data: TrainingData
) -> TextEncoder | None:
    """The T5 encoder of a stage with text, its cache filled; without text nothing is loaded."""
    if not config.stage.text or config.text is None:
        return None
    encoder = TextEncoder(
        config.text.t5_model_name,
        config.text.max_length,
        device="cuda" if torch.cuda.is_available() and options.accelerator != "cpu" else "cpu",
    )
    if encoder.dim != config.text.dim:
        raise UserError(
            f"model.conditioning.configs: prompt: dim is {config.text.dim}, but "
            f"{encoder.model} gives {encoder.dim}"
        )
    prepare_text(data, encoder, options.use_caption)
    return encoder


def resume_step(module: SAGASRTrainer, checkpoint: dict[str, Any] | None) -> int:
    """The optimiser step that ``checkpoint`` goes on from, after the refusal of changes."""
    if checkpoint is None:
        return 0
    run_folder.refuse_changes(checkpoint["saga_sr"], module.identity())
    return checkpoint["global_step"]


def quiet_lightning() -> None:
    """Leave the terminal to this script: no tips, no remarks on what is meant as it is."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    remarks = (".*in eval mode at the start.*", ".*LeafSpec.*", "Checkpoint directory.*",
               ".*does not have many workers.*", ".*weight_norm.*deprecated.*",
               ".*when logging on epoch level in distributed.*")  # fmt: skip
    for remark in remarks:
        warnings.filterwarnings("ignore", message=remark)


@faults.machine_faults_named()
def main(options: argparse.Namespace) -> int:
    """Train as ``options`` say; returns the exit code."""
    quiet_lightning()
    config = resolve_config(options)
    resumed = run_folder.find_checkpoint(options.checkpoint, options.output_dir)
    checkpoint = run_folder.read_checkpoint(resumed) if resumed else None
    L.seed_everything(options.seed, verbose=False)  # initial weights; draws have their own seeds
    data = open_training_data(options, config)
    if config.stage.rolloff and config.sampling.target_rolloff is not None:
        target = data.default_target_rolloff(config)
        config = config.replacing("sampling.target_rolloff", target)
    module = SAGASRTrainer(config, options, build_text_encoder(options, config, data))
    module.data_fingerprint = data.fingerprint()
    module.val_names = list(data.fixed)
    load_weights(module, options)
    data.check_weights(module.model)
    first_step = resume_step(module, checkpoint)
    module.validation_is_due = not run_folder.was_validated(options.output_dir, first_step)
    if options.export_only:
        return export_checkpoint(module, checkpoint)
    run_folder.write_records(options.output_dir, options, config)
    trainer = build_trainer(options, config, bool(data.fixed), first_step)
    say(
        f"Training {config.stage} with {sum(p.numel() for _, p in module.model.trainable()):,} "
        f"parameters, {module.global_batch} clips of {config.duration_s:.2f} s a step"
    )
    try:
        trainer.fit(
            module,
            train_loader(data, options, trainer, first_step * module.global_batch),
            [val_loader(clips, options, trainer) for clips in data.fixed.values()],
            ckpt_path=resumed,
            weights_only=True,
        )
    except run_folder.StoppedBySignal as stopped:
        say(f"\nStopped by {stopped} at step {module.global_step}; go on with --checkpoint last")
        return stopped.exit_code
    if trainer.is_global_zero or is_sharded(module.model):
        summarise(module, export(module))
    return 0


def export_checkpoint(module: SAGASRTrainer, checkpoint: dict[str, Any] | None) -> int:
    """Write the export of a checkpoint without training."""
    if checkpoint is None:
        raise UserError("--export_only: there is no checkpoint to export")
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    say(f"Exported step {checkpoint['global_step']} to {export(module)}")
    return 0


if __name__ == "__main__":
    assert OPTIONS is not None
    options = OPTIONS
    raise SystemExit(run_cli(lambda: main(options)))

"""What surrounds the method while it is trained: optimiser, log, validation, checkpoints."""

import argparse
import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from saga_sr.config import ModelConfig
from saga_sr.dataset import degrade
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.rolloff import RolloffFourierConditioner
from saga_sr.support import environment
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import torch_generator
from saga_sr.text import TextEncoder
from saga_sr.training import faults, resume, samples, validation
from saga_sr.training.ema import EMA
from saga_sr.training.optimisation import adamw, learning_rate_factor
from saga_sr.training.sharding import is_sharded, shard, whole

Batch = tuple[Tensor, list[dict[str, Any]]]
say = rank_zero_only(print)

GRAD_NORM_HISTORY = 20


class TrainingModule(L.LightningModule):
    """A `SAGASRModel` in training; `training_step` and `validation_step` come from the method.

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
        self.save_hyperparameters(environment.plain_options(options), logger=False)
        self.config, self.options, self.text_encoder = config, options, text_encoder
        self.model = SAGASRModel(config)
        self.model.activation_checkpointing = options.activation_checkpointing
        self.teacher: SAGASRModel | None = None  # of --distill_from
        if options.compile:
            self.model.dit.transformer.compile()
        if options.detect_anomaly:
            faults.watch_for_non_finite(self.model)
        self.ema = EMA(self.model.trainable(), config.training.ema, options.ema_on_cpu)
        self.data_fingerprint = ""
        self.text_fingerprint: str | None = None
        self.frozen: dict[str, list[float]] = {}
        self.validation_is_other = False
        self.val_names: list[str] = []
        self.last_means: dict[str, float] = {}
        self.validation_is_due = False
        self._grad_norms: deque[float] = deque(maxlen=GRAD_NORM_HISTORY)
        self._micro_losses: list[Tensor] = []
        self._last_step_time: float | None = None

    # Where the user's plan (section 0) has them; they are the model's.
    @property
    def rolloff_conditioner(self) -> RolloffFourierConditioner:
        return self.model.rolloff_conditioner

    def drop_target_rolloff(self, batch: Batch, cond: Conditioning) -> Conditioning:
        """Leave some target roll-offs untold: functions of (seed, draw)."""
        prob = self.config.training.dropout.rolloff_prob
        if cond.rolloff_hz is None or not prob:
            return cond
        keys = (("target roll-off", self.options.seed, item["draw"]) for item in batch[1])
        u = torch.cat([torch.rand(1, generator=torch_generator(*key)) for key in keys])
        told = torch.stack([torch.ones_like(u), (u >= prob).float()], dim=1)
        return replace(cond, rolloff_hz=cond.rolloff_hz * told.to(self.device))

    def _build_rolloff_prepend(self, rolloff_global: Tensor, timestep: Tensor) -> Tensor:
        return self.model._build_rolloff_prepend(rolloff_global, timestep)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Low-pass what the workers left to the device, outside autocast."""
        hr, metadata = batch
        if "lowpass" in metadata[0]:
            metadata = degrade(hr, metadata, self.config.sample_rate)
        return hr, metadata

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
        """Clip the norm, log it, stop if it is not finite."""
        trained = [parameter for _, parameter in self.model.trainable()]
        limit = gradient_clip_val or math.inf
        norm = whole(torch.nn.utils.clip_grad_norm_(trained, limit))
        self._stop_if_not_finite("gradient norm", norm)
        self._grad_norms.append(float(norm))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.config.training.use_ema:
            self.ema.update(self.global_step + 1)
        self._log_step()

    def counted(self, batch: Batch, loss: Tensor) -> Tensor:
        """The loss of a step, kept for the log; training stops where it is not finite."""
        self._stop_if_not_finite("loss", loss, [item["audio_path"] for item in batch[1]])
        self._micro_losses.append(loss.detach())
        return loss

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
            "last checkpoint is from before. Try --precision 32-true with --checkpoint last, or "
            "--detect_anomaly to see where it arises, or a lower --learning_rate in a new run "
            "that starts from the export of this one (--checkpoint last --export_only, then "
            f"--init_from). Gradient norms before: {norms}",
            where,
        )

    def on_validation_epoch_start(self) -> None:
        """From here to `leave_validation` the parameters are the averaged ones."""
        self._averaged = ExitStack()
        if self.config.training.use_ema:
            self._averaged.enter_context(self.ema.applied())
        self._means = {name: validation.MeanOverClips() for name in self.val_names}

    def leave_validation(self) -> None:
        """The parameters are again those that are trained."""
        self._averaged.close()

    def on_validation_epoch_end(self) -> None:
        self.leave_validation()
        if self.trainer.sanity_checking:
            return
        for name, means in self._means.items():
            found = means.means() | means.means_by_category()
            if "lsd" not in found:
                raise UserError(
                    f"{name}: no clip has a finite LSD: all are silent, or what the model makes of "
                    "them is NaN. Try other clips (--val_dir, --val_num_clips) or --precision "
                    "32-true"
                )
            values = {f"{name}/{metric}": value for metric, value in found.items()}
            self._log_numbers(values, self.global_step - 1)  # beside the step that it follows
            self.last_means |= values

    def _from_metadata(
        self, metadata: list[dict[str, Any]], key: str, default: float | None = None
    ) -> Tensor:
        values = [item[key] if default is None else item.get(key, default) for item in metadata]
        return torch.tensor([float(value) for value in values], device=self.device)

    def _write_samples(
        self,
        name: str,
        clips: list[int],
        audio: dict[str, Tensor],
        metadata: list[dict[str, Any]],
    ) -> None:
        """WAVs and a picture of the first clips: into the output folder, TensorBoard and W&B."""
        if self.trainer.sanity_checking or self.options.fast_dev_run:
            return
        if not self.trainer.is_global_zero:  # it writes the first clips of its share
            return
        for row, clip in enumerate(clips):
            if clip >= self.options.val_num_pictures * self.trainer.world_size:
                continue
            folder = self.options.output_dir / "samples" / f"step={self.global_step:08d}"
            panels = {label: batch[row].float().cpu() for label, batch in audio.items()}
            rate, label = self.config.sample_rate, f"{name}-{clip:02d}"
            picture = samples.write_clip(folder, label, panels, rate, metadata[row])
            tag = f"{name}/clip-{clip:02d}"
            samples.log_clip(self.loggers, tag, picture, panels, rate, self.global_step)

    @property
    def global_batch(self) -> int:
        """Clips per optimiser step over all processes."""
        return resume.clips_per_step(self.options)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with its checkpoint (see `resume.refuse_changes`)."""
        return resume.settings(self.options, self.config) | {
            "data": self.data_fingerprint,
            "texts": self.text_fingerprint,
            "frozen": self.frozen,
            "text_encoder": None if self.text_encoder is None else self.text_encoder.probe,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Only what is trained: the frozen VAE is 0.6 GB that every checkpoint would repeat."""
        trained = {f"model.{name}" for name, _ in self.model.trainable()}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {n: v for n, v in state.items() if n in trained}
        checkpoint["saga_sr"] = self.identity() | {"ema": self.ema.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.validation_is_other:  # no number of before can be the best
            checkpoint["callbacks"] = {
                name: state
                for name, state in checkpoint["callbacks"].items()
                if not name.startswith("ModelCheckpoint")
            }
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

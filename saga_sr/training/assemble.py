"""What a run is put together from: config, weights, loaders, loggers, Lightning's trainer."""

import argparse
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader, Subset

from saga_sr import weights
from saga_sr.config import ModelConfig, parse_model_config
from saga_sr.data.fixed_clips import FixedClips, RepeatedClips
from saga_sr.dataset import DrawSampler, collate
from saga_sr.flow import Parameterisation
from saga_sr.support.device import pick_precision
from saga_sr.support.errors import UserError
from saga_sr.support.processes import process_rank, start_worker
from saga_sr.text import TextEncoder
from saga_sr.training import checkpoints, early, faults, metrics_csv
from saga_sr.training.data import TrainingData, prepare_text
from saga_sr.training.ema import EMA
from saga_sr.training.folder import checkpoint_folder
from saga_sr.training.module import TrainingModule
from saga_sr.training.resume import probes
from saga_sr.training.sharding import ShardedStrategy

say = rank_zero_only(print)


def resolve_config(
    options: argparse.Namespace, stored: Mapping[str, Any] | None = None
) -> ModelConfig:
    """The JSON with the flags and what the starting weights are on top, validated again.

    Args:
        options: the flags.
        stored: the config of the checkpoint to resume from, if any: its weights are the start.
    """
    config = early.resolve_config(options)
    found = _parameterisation(options, stored)
    if found is None:
        return config
    return config.replacing("model.diffusion.parameterisation", found)


def _parameterisation(
    options: argparse.Namespace, stored: Mapping[str, Any] | None
) -> Parameterisation | None:
    """What the starting weights were trained to answer; None: what flag and JSON say."""
    if options.parameterisation is not None:
        return None
    if stored is not None:
        return parse_model_config(stored).model.diffusion.parameterisation
    if start := options.init_from or options.distill_from:
        return weights.exported_config(start).model.diffusion.parameterisation
    if not options.pretrained_ckpt:
        return None
    found, reason = weights.stable_audio_parameterisation(options.pretrained_ckpt)
    say(f"--parameterisation {found} ({reason})")
    return found


def load_weights(module: TrainingModule, options: argparse.Namespace) -> None:
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
    if options.distill_from:
        module.teacher = teacher = weights.load_teacher(model, options.distill_from)
        if options.compile:
            teacher.dit.transformer.compile()
        sampling = teacher.config.sampling
        say(
            f"{options.distill_from} teaches, in {options.teacher_steps} steps with "
            f"s_a = {sampling.guidance_acoustic:g}, s_t = {sampling.guidance_text:g}"
        )
        has_pretransform = True
    if not has_pretransform and not options.allow_random_pretransform:
        raise UserError(early.NO_PRETRANSFORM_WEIGHTS)
    weights.fold_weight_norm(model)
    trained = {name for name, _ in model.trainable()}
    frozen = {n: v for n, v in model.state_dict().items() if n not in trained}
    if module.teacher is not None:
        frozen |= {f"teacher.{n}": v for n, v in module.teacher.named_parameters()}
    module.frozen = probes(frozen)
    module.ema = EMA(model.trainable(), module.config.training.ema, options.ema_on_cpu)


def build_text_encoder(
    options: argparse.Namespace, config: ModelConfig, data: TrainingData
) -> TextEncoder | None:
    """The encoder of a stage with text, its cache filled; without text nothing is loaded."""
    if not config.stage.text or config.text is None:
        return None
    gpus = torch.cuda.device_count() if options.accelerator in ("auto", "gpu") else 0
    device = torch.device("cuda", process_rank() % gpus) if gpus else torch.device("cpu")
    settings = config.text
    encoder = TextEncoder(settings.model, settings.max_length, settings.kind, device=device)
    if encoder.dim != config.text.dim:
        raise UserError(
            f"model.conditioning.configs: prompt: dim is {config.text.dim}, but "
            f"{encoder.model} gives {encoder.dim}"
        )
    prepare_text(data, encoder, options.use_caption)
    return encoder


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
        worker_init_fn=start_worker,
        timeout=faults.DATA_TIMEOUT_S if options.num_workers else 0,
    )


def val_loader(
    clips: FixedClips | RepeatedClips, options: argparse.Namespace, trainer: L.Trainer
) -> DataLoader:
    """Every process validates equally many clips, so that they stay in step; the few that come
    twice are counted once by `MeanOverClips`."""
    rank, processes = trainer.global_rank, trainer.world_size
    share = [(rank + n * processes) % len(clips) for n in range(-(-len(clips) // processes))]
    return DataLoader(Subset(clips, share), batch_size=options.batch_size, collate_fn=collate)


def build_loggers(
    options: argparse.Namespace, module: TrainingModule, first_step: int
) -> list[Logger]:
    folder = options.output_dir
    loggers: list[Logger] = [
        metrics_csv.MetricsCSV(folder / "metrics.csv", first_step, not module.validation_is_due)
    ]
    if options.logger == "tensorboard":
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    if options.logger == "wandb":
        loggers.append(WandbLogger(save_dir=folder, project="saga-sr"))
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
    options: argparse.Namespace, config: ModelConfig, module: TrainingModule, first_step: int
) -> L.Trainer:
    validated = bool(module.val_names)
    folder = checkpoint_folder(options.output_dir)
    newest = checkpoints.NewestCheckpoints(
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
    precision: Any = pick_precision(options.precision, torch.device("cuda" if on_gpu else "cpu"))
    processes = options.devices * options.num_nodes
    plugins: list[Any] = [checkpoints.AtomicCheckpointIO()]
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
        logger=build_loggers(options, module, first_step),
        callbacks=callbacks,
        plugins=plugins,
        use_distributed_sampler=False,
        enable_model_summary=False,
        detect_anomaly=options.detect_anomaly,
        fast_dev_run=options.fast_dev_run,
    )


def quiet_lightning() -> None:
    """Leave the terminal to this script: no tips, no remarks on what is meant as it is."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    remarks = (".*in eval mode at the start.*", ".*LeafSpec.*", "Checkpoint directory.*",
               ".*does not have many workers.*", ".*across ranks is zero.*",
               ".*when logging on epoch level in distributed.*")  # fmt: skip
    for remark in remarks:
        warnings.filterwarnings("ignore", message=remark)

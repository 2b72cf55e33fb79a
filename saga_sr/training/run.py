"""One run of the training script, from its flags to the export."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from saga_sr import weights
from saga_sr.model import SAGASRModel
from saga_sr.support.errors import UserError
from saga_sr.training import checkpoints, faults, metrics_csv
from saga_sr.training import folder as run_folder
from saga_sr.training.assemble import (
    build_text_encoder,
    build_trainer,
    load_weights,
    quiet_lightning,
    resolve_config,
    train_loader,
    val_loader,
)
from saga_sr.training.data import open_training_data
from saga_sr.training.module import TrainingModule
from saga_sr.training.sharding import is_sharded, whole_state

say = rank_zero_only(print)


@faults.machine_faults_named()
def run(options: argparse.Namespace, trainer_class: type[TrainingModule]) -> int:
    """Train as ``options`` say, by the method of ``trainer_class``; returns the exit code."""
    quiet_lightning()
    config = resolve_config(options)
    resumed = checkpoints.find_checkpoint(options.checkpoint, options.output_dir)
    checkpoint = checkpoints.read_checkpoint(resumed) if resumed else None
    L.seed_everything(options.seed, verbose=False)  # initial weights; draws have their own seeds
    data = open_training_data(options, config)
    if config.stage.rolloff and config.sampling.target_rolloff is not None:
        target = data.default_target_rolloff(config)
        config = config.replacing("sampling.target_rolloff", target)
    module = trainer_class(config, options, build_text_encoder(options, config, data))
    module.data_fingerprint = data.fingerprint()
    module.val_names = list(data.fixed)
    load_weights(module, options)
    data.check_weights(module.model)
    first_step = resume_step(module, checkpoint)
    module.validation_is_due = not metrics_csv.was_validated(options.output_dir, first_step)
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
    except checkpoints.StoppedBySignal as stopped:
        say(f"\nStopped by {stopped} at step {module.global_step}; go on with --checkpoint last")
        return stopped.exit_code
    if trainer.is_global_zero or is_sharded(module.model):
        summarise(module, export(module))
    return 0


def export_checkpoint(module: TrainingModule, checkpoint: dict[str, Any] | None) -> int:
    """Write the export of a checkpoint without training."""
    if checkpoint is None:
        raise UserError("--export_only: there is no checkpoint to export")
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    say(f"Exported step {checkpoint['global_step']} to {export(module)}")
    return 0


def resume_step(module: TrainingModule, checkpoint: dict[str, Any] | None) -> int:
    """The optimiser step that ``checkpoint`` goes on from, after the refusal of changes."""
    if checkpoint is None:
        return 0
    checkpoints.refuse_changes(checkpoint["saga_sr"], module.identity())
    return checkpoint["global_step"]


def export(module: TrainingModule) -> Path:
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


def summarise(module: TrainingModule, exported: Path) -> None:
    """What was reached, and where it lies."""
    folder, means = module.options.output_dir, module.last_means
    say(f"\nTrained {module.config.stage} for {module.global_step} steps.")
    for name in module.val_names:
        for metric in ("lsd", "lsd_hf", "high_band_error_db", "si_sdr"):
            if (key := f"{name}/{metric}") in means:
                say(f"  {key:32s} {means[key]:8.3f}   (input: {means[key + '_input']:8.3f})")
    say(f"  metrics      {folder / 'metrics.csv'}\n  checkpoints  {folder / 'checkpoints'}")
    say(f"  samples      {folder / 'samples'}\n  export       {exported}")

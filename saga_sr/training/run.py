"""One run of the training script, from its flags to the export."""

import argparse
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from saga_sr import weights
from saga_sr.model import SAGASRModel
from saga_sr.support.device import check_accelerator
from saga_sr.support.errors import UserError
from saga_sr.training import checkpoints, faults, metrics_csv, resume
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
from saga_sr.training.early import refuse_early
from saga_sr.training.metrics_csv import read_metrics
from saga_sr.training.module import TrainingModule
from saga_sr.training.sharding import is_sharded, whole_state

say = rank_zero_only(print)


@faults.machine_faults_named()
def run(options: argparse.Namespace, trainer_class: type[TrainingModule]) -> int:
    """Train as ``options`` say, by the method of ``trainer_class``; returns the exit code."""
    quiet_lightning()
    refuse_early(options)
    check_accelerator(options.accelerator, options.devices)
    resumed = checkpoints.find_checkpoint(options.checkpoint, options.output_dir)
    with run_folder.claimed(options, options.output_dir) as folder:
        run_folder.refuse_to_replace(options, options.output_dir)  # once more, behind the lock
        settled = argparse.Namespace(**vars(options) | {"output_dir": folder})
        return _run(settled, resumed, trainer_class)


def _run(
    options: argparse.Namespace, resumed: Path | None, trainer_class: type[TrainingModule]
) -> int:
    checkpoint = checkpoints.read_checkpoint(resumed) if resumed else None
    config = resolve_config(options, checkpoint["saga_sr"]["config"] if checkpoint else None)
    if checkpoint:
        resume.refuse_changes(checkpoint["saga_sr"], resume.settings(options, config))
    L.seed_everything(options.seed, verbose=False)  # initial weights; draws have their own seeds
    data = open_training_data(options, config)
    if config.stage.rolloff:
        target = data.default_target_rolloff(config)
        config = config.replacing("sampling.target_rolloff", target)
    module = trainer_class(config, options, build_text_encoder(options, config, data))
    module.data_fingerprint = data.fingerprint()
    if config.stage.text:
        module.text_fingerprint = data.text_fingerprint(options.use_caption)
    module.val_names = list(data.fixed)
    load_weights(module, options)
    data.check_weights(module.model)
    first_step = resume_step(module, checkpoint)
    if options.export_only:
        return export_checkpoint(module, checkpoint)
    run_folder.make_room(options, options.output_dir, first_step)
    run_folder.write_records(options.output_dir, options, config)
    trainer = build_trainer(options, config, module, first_step)
    if first_step >= options.max_steps:
        say(f"--max_steps {options.max_steps} are done: nothing is left to train")
    say(
        f"Training {config.stage} with {sum(p.numel() for _, p in module.model.trainable()):,} "
        f"parameters, {module.global_batch} clips of {config.duration_s:.2f} s a step, "
        f"{trainer.precision}"
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
    except SystemExit:  # Lightning's answer to a Ctrl-C that it catches
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
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
    stored, step = checkpoint["saga_sr"], checkpoint["global_step"]
    resume.refuse_changes(stored, module.identity())
    if others := resume.validation_changes(stored, module.identity()):
        module.validation_is_other = True
        say(
            f"From step {step} on validation has other rules; val/ metrics before and after "
            f"cannot be compared, and best.ckpt is chosen anew: {'; '.join(others)}"
        )
    if course := resume.other_course(stored, module.identity()):
        say(course)
    measured = metrics_csv.was_validated(module.options.output_dir, step)
    anew = module.validation_is_other and step < module.options.max_steps
    module.validation_is_due = anew or not measured
    return step


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
    folder = module.options.output_dir
    newest = {name: (step, value) for step, name, value in read_metrics(folder / "metrics.csv")}
    say(f"\nTrained {module.config.stage} for {module.global_step} steps.")
    for name in module.val_names:
        for metric in ("lsd", "lsd_hf", "high_band_error_db", "si_sdr"):
            inside = [key for key in newest if fnmatch(key, f"{name}/*/{metric}")]  # by category
            for key in (f"{name}/{metric}", *inside):
                if key in newest:
                    step, value = newest[key]
                    of_input = newest[f"{key}_input"][1]
                    say(f"  {key:32s} {value:8.3f}   (input: {of_input:8.3f}; step {step + 1})")
    if module.options.fast_dev_run:
        say("  a trial: all of it went well, and nothing of it is kept")
        return
    say(f"  metrics      {folder / 'metrics.csv'}\n  checkpoints  {folder / 'checkpoints'}")
    say(f"  samples      {folder / 'samples'}\n  export       {exported}")

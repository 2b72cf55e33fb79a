"""Checkpoints of a run: written whole or not at all, the newest kept, changes refused on resume."""

import pickle
import signal
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from saga_sr.support.errors import UserError, first_line
from saga_sr.support.files import atomic_path
from saga_sr.training.folder import checkpoint_folder, numbered_checkpoints

say = rank_zero_only(print)


# --- checkpoints --------------------------------------------------------------------------------
class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all, and are read without running a pickle."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        try:
            with atomic_path(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
            if "DataLoader worker" in str(error):  # torch tells of a dead one wherever it happens
                raise
            raise UserError(
                f"{path}: the checkpoint cannot be written ({first_line(error)}); those before it "
                "are whole. Make room on the disk, then go on with --checkpoint last"
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path)


class StoppedBySignal(Exception):
    """A signal ended the run, and a checkpoint was saved; its text is the signal's name."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class NewestCheckpoints(Checkpoint):
    """``step=00001000.ckpt`` every so many steps, at the end, and on SIGTERM (preemption, SLURM) or
    Ctrl-C, which end the run.

    A checkpoint comes after the numbers of its step in metrics.csv and before the validation of
    its step, which a resumed run does first if it is missing.

    A signal is only noted, and all processes agree at the next batch to stop there. (Lightning's
    own handler, installed between `setup` and the first validation, broadcasts from wherever the
    signal finds it, in the middle of another collective operation, saves nothing, and ends the run
    with exit code 0.)

    Args:
        folder: of the checkpoints.
        every_n_steps: in optimiser steps.
        keep: how many to keep, whichever process of whichever start wrote them.
    """

    def __init__(self, folder: Path, every_n_steps: int, keep: int) -> None:
        self.folder, self.every_n_steps, self.keep = folder, every_n_steps, keep
        self._signal = 0
        self._saved_step = 0

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._listen()

    def on_sanity_check_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._listen()
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            for half_written in self.folder.glob(".*.tmp.ckpt"):
                half_written.unlink()

    def _listen(self) -> None:
        signal.signal(signal.SIGTERM, self._note)
        if not self._signal:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self._signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        if self._told_to_stop(trainer):
            self._save_and_stop(trainer)
        step = trainer.global_step
        if step % self.every_n_steps == 0 and self._saved_step < step < trainer.max_steps:
            self._save(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        if not trainer.sanity_checking and self._told_to_stop(trainer):
            module.leave_validation()
            self._save_and_stop(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._saved_step < trainer.global_step:
            self._save(trainer)

    def _told_to_stop(self, trainer: L.Trainer) -> bool:
        """Whether any process was; after the last step there is nothing to stop any more."""
        noted = trainer.strategy.reduce_boolean_decision(self._signal != 0, all=False)
        return noted and trainer.global_step < trainer.max_steps

    def _save_and_stop(self, trainer: L.Trainer) -> None:
        if self._saved_step < trainer.global_step:
            self._save(trainer)
        raise StoppedBySignal(self._signal or signal.SIGTERM)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder / f"step={self._saved_step:08d}.ckpt")
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob("step=*.ckpt"))[: -self.keep]:
                old.unlink()


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Load a training checkpoint on the CPU.

    Raises:
        UserError: missing, truncated, corrupt, no training checkpoint, or not only data.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"--checkpoint {path}: no such file") from error
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower():
            raise UserError(f"--checkpoint {path}: refused, it holds more than data") from error
        raise UserError(f"--checkpoint {path}: truncated or corrupt") from error
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"--checkpoint {path}: truncated or corrupt ({reason})") from error
    if not isinstance(checkpoint, dict) or "saga_sr" not in checkpoint:
        raise UserError(f"--checkpoint {path}: not a checkpoint of train_saga_sr.py")
    return checkpoint


def is_whole(path: Path) -> bool:
    """Whether every record of a checkpoint file still has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # whatever damaged bytes provoke in zipfile: most of it is no BadZipFile
        return False


def find_checkpoint(requested: str | None, output_dir: Path) -> Path | None:
    """The checkpoint to resume from: a path, or for ``last`` the newest whole one of the run.

    A truncated or corrupt file is named, and the one before it is used. Returns None where nothing
    was requested, or ``last`` finds nothing yet (which is said).
    """
    if requested is None:
        return None
    if requested != "last":
        return Path(requested)
    found = numbered_checkpoints(output_dir)
    for path in found:
        if is_whole(path):
            say(f"--checkpoint last: resuming from {path}")
            return path
        say(f"--checkpoint last: {path} is truncated or corrupt; trying the one before")
    if found:
        raise UserError(
            f"--checkpoint last: no whole checkpoint in {checkpoint_folder(output_dir)}"
        )
    say(f"--checkpoint last: none in {checkpoint_folder(output_dir)} yet; starting fresh")
    return None

"""The output folder of a training run: alone, it reproduces the run, and it holds one run only.

config.json        resolved model config (what --model_config and the flags came to)
options.json       every flag
environment.json   package versions, Python, platform, git commit
metrics.csv        step, metric, value: one line per logged number
tensorboard/       the same as curves, with pictures
checkpoints/       step=00001000.ckpt ...; written whole or not at all
samples/           WAVs and spectrograms of validation clips
export/            config.json + model.safetensors (EMA weights)

Nothing in it is replaced unasked: a fresh start where a run lies is refused, a lock keeps two
processes apart, and a trial (--fast_dev_run) happens in a temporary folder. No torch here: this is
known before it is imported.
"""

import re
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saga_sr.config import ModelConfig
from saga_sr.support.environment import describe_environment, plain_options
from saga_sr.support.errors import UserError
from saga_sr.support.files import exclusive_lock, write_json_atomic
from saga_sr.support.processes import process_rank

CHECKPOINTS = "checkpoints"
EXPORT = "export"
RECORDS = ("config.json", "options.json", "environment.json")
# What a run writes, the export first: what is deleted in part is no model any more.
CONTENTS = (EXPORT, CHECKPOINTS, "samples", "tensorboard", "wandb", "metrics.csv", *RECORDS)
LOCK = ".lock"


# --- its place --------------------------------------------------------------------------------
def output_folder(options: Namespace, config: ModelConfig) -> Path:
    """``--output_dir``; without it the folder of the run whose checkpoint is given, or one named
    after config and stage: ``runs/saga_sr-f0`` for saga_model_config.json at F0."""
    if options.output_dir is not None:
        return options.output_dir
    if options.checkpoint not in (None, "last"):
        folder = Path(options.checkpoint).parent
        if folder.name == CHECKPOINTS:
            return folder.parent
    name = options.model_config.stem.replace("saga_model_config", "saga_sr")
    overfit = f"-overfit{options.overfit_clips}" if options.overfit_clips else ""
    return Path("runs") / f"{name}-{config.stage.short_name}{overfit}"


def checkpoint_folder(output_dir: Path) -> Path:
    return output_dir / CHECKPOINTS


def numbered_checkpoints(output_dir: Path) -> list[Path]:
    """``step=*.ckpt`` of a run, the newest first."""
    return sorted(checkpoint_folder(output_dir).glob("step=*.ckpt"), reverse=True)


def step_of(checkpoint: Path) -> int | None:
    """The step in a checkpoint's name, if it has one."""
    found = re.fullmatch(r"step=(\d+)\.ckpt", checkpoint.name)
    return int(found[1]) if found else None


# --- nothing is lost --------------------------------------------------------------------------
def refuse_to_replace(options: Namespace, folder: Path) -> None:
    """Refuse what would replace or mix a run that lies in ``folder``.

    Raises:
        UserError: says what lies there and what to do.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder}: it is a file; a folder is expected")
    if options.fast_dev_run or process_rank() > 0:  # the first process has begun the folder
        return
    problem = _replaced(options, folder)
    if problem and not options.overwrite:
        raise UserError(f"--output_dir {folder}: {problem}")
    for flag in ("init_from", "distill_from") if options.overwrite else ():
        given = getattr(options, flag)
        if given and _lies_in(Path(given), folder):
            raise UserError(f"--overwrite would delete --{flag} {given}; give another --output_dir")


def _replaced(options: Namespace, folder: Path) -> str | None:
    """What would be replaced or mixed, in words; None where nothing would."""
    there = [name for name in CONTENTS if (folder / name).exists()]
    checkpoints = numbered_checkpoints(folder)
    newest = f", at step {step_of(checkpoints[0])}" if checkpoints else ""
    if not there:
        return None
    if options.checkpoint is None:
        return (
            f"it holds a run already ({', '.join(there[:3])}{newest}). Give another --output_dir, "
            "go on with it (--checkpoint last), or --overwrite it"
        )
    if options.checkpoint == "last":
        if checkpoints or EXPORT not in there:  # a run that was killed before its first checkpoint
            return None
        return (
            "--checkpoint last: it holds an export and no checkpoint to go on from. Give another "
            "--output_dir, or --overwrite"
        )
    given = Path(options.checkpoint)
    if given.parent.resolve() != checkpoint_folder(folder).resolve():
        return (
            f"it holds another run ({', '.join(there[:3])}{newest}) than --checkpoint {given}. "
            "Give another --output_dir, or --overwrite it"
        )
    if not checkpoints or given.resolve() == checkpoints[0].resolve():
        return None
    if options.export_only:
        if EXPORT not in there:
            return None
        return f"its export is of a newer step{newest}. Give another --output_dir, or --overwrite"
    return (
        f"this run has gone on beyond {given.name}{newest}. Go on from there (--checkpoint last), "
        "give the branch its own --output_dir, or --overwrite what came after"
    )


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def make_room(options: Namespace, folder: Path, first_step: int) -> None:
    """With --overwrite, delete what a run left in ``folder``: all of it, or, where the run goes on
    from one of its checkpoints, the later ones. Other files stay."""
    if not options.overwrite or process_rank() > 0:
        return
    if first_step and _is_own(options, folder):
        for checkpoint in numbered_checkpoints(folder):
            if (step_of(checkpoint) or 0) > first_step:
                checkpoint.unlink()
        return
    for name in CONTENTS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_own(options: Namespace, folder: Path) -> bool:
    given = options.checkpoint
    return given == "last" or _lies_in(Path(given), folder)


@contextmanager
def claimed(options: Namespace, folder: Path) -> Iterator[Path]:
    """The folder that this process writes to: ``folder``, locked by the first process of a run, or
    for a trial a temporary one that is gone afterwards.

    Raises:
        UserError: another process trains there, or it cannot be written.
    """
    if options.fast_dev_run:
        with tempfile.TemporaryDirectory(prefix="saga-sr-trial-") as trial:
            yield Path(trial)
    elif options.export_only or process_rank() > 0:
        yield folder
    else:
        was_there = folder.exists()
        with exclusive_lock(
            folder / LOCK, f"--output_dir {folder}: another process trains there; give another"
        ):
            try:
                yield folder
            finally:
                if [path.name for path in folder.iterdir()] == [LOCK]:  # nothing came of it
                    (folder / LOCK).unlink()
                    if not was_there:
                        folder.rmdir()


# --- its records ------------------------------------------------------------------------------
def write_records(folder: Path, options: Namespace, config: ModelConfig) -> None:
    """Write config.json, options.json and environment.json, by the first process."""
    if process_rank() > 0:
        return
    values = (config.model_dump(mode="json"), plain_options(options), describe_environment())
    for name, value in zip(RECORDS, values, strict=True):
        write_json_atomic(folder / name, value)

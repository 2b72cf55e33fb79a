"""What can be refused before torch is imported, a model built or a corpus read.

A mistake that is told after an hour of indexing costs an hour. Nothing here needs torch; what needs
to know the machine's GPUs follows directly after it (`saga_sr.support.device.check_accelerator`).
"""

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from saga_sr.config import (
    ModelConfig,
    load_model_config,
    stage_differences,
    student_config,
    teacher_problems,
    untrained_guidance,
)
from saga_sr.support.errors import UserError
from saga_sr.support.hub import located
from saga_sr.training import folder as run_folder

# One of these is there wherever torch can use a GPU: NVIDIA's driver (Tegra, WSL), AMD's.
GPU_DEVICES = ("nvidiactl", "nvmap", "nvhost-ctrl-gpu", "dxg", "kfd")
STUDENT_STEPS = (1, 2, 4)  # without --distill_steps
LOGGER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
NO_PRETRANSFORM_WEIGHTS = (
    "the config's autoencoder has no weights: training on a random one learns nothing. "
    "Give --pretransform_ckpt (a VAE), --pretrained_ckpt (Stable Audio Open, which holds "
    "one), or a config without one (saga_model_config_demo.json)"
)


def resolve_config(options: argparse.Namespace) -> ModelConfig:
    """The JSON with the flags on top, validated again."""
    config = load_model_config(options.model_config)
    if options.distill_from:
        made_for = options.distill_steps or config.model.diffusion.student_steps or STUDENT_STEPS
        config = student_config(config, made_for)
    if options.val_num_steps is not None:
        config = config.with_num_steps(options.val_num_steps)
    overrides = {
        "training.learning_rate": options.learning_rate,
        "sampling.emulate_linear_steps": options.val_emulate_linear_steps,
        "sampling.guidance_acoustic": options.guidance_acoustic,
        "sampling.guidance_text": options.guidance_text,
        "model.diffusion.compute_rolloff": options.compute_rolloff or None,
        "model.diffusion.parameterisation": options.parameterisation,
    }
    for path, value in overrides.items():
        if value is not None:
            config = config.replacing(path, value)
    problems = untrained_guidance(config)
    if config.model.diffusion.student_steps and not options.distill_from:
        problems.append("model.diffusion.student_steps: a student is trained with --distill_from")
    if options.val_cutoff_hz >= config.sample_rate / 2:
        problems.append(f"--val_cutoff_hz is {options.val_cutoff_hz:g}, at or above Nyquist")
    if problems:
        raise UserError.listing("config and flags do not fit", problems)
    return config


def refuse_early(options: argparse.Namespace) -> ModelConfig:
    """Settle the config and the output folder (``options.output_dir``), and refuse all that cannot
    work; returns the config.

    Raises:
        UserError: lists what is wrong.
    """
    config = resolve_config(options)
    options.output_dir = run_folder.output_folder(options, config)
    checks = (_weights, _exported_start, _checkpoint, _text, _packages, _machine)
    if problems := [problem for check in checks for problem in check(options, config)]:
        raise UserError.listing("this cannot be trained", problems)
    run_folder.refuse_to_replace(options, options.output_dir)
    return config


def _weights(options: argparse.Namespace, config: ModelConfig) -> Iterator[str]:
    for flag in ("pretrained_ckpt", "pretransform_ckpt"):
        given = getattr(options, flag)
        if given and not Path(given).exists() and not _may_be_hub_id(given):
            yield f"--{flag} {given}: no such file or folder"
    needed = config.model.pretransform.type == "autoencoder"
    given = (options.pretrained_ckpt, options.pretransform_ckpt, *_starts(options).values())
    if needed and not any(given) and not options.allow_random_pretransform:
        yield NO_PRETRANSFORM_WEIGHTS


def _starts(options: argparse.Namespace) -> dict[str, str]:
    """The flags that name an exported model, and which."""
    flags = ("init_from", "distill_from")
    return {flag: getattr(options, flag) for flag in flags if getattr(options, flag)}


def _exported_start(options: argparse.Namespace, config: ModelConfig) -> Iterator[str]:
    for flag, given in _starts(options).items():
        folder = Path(given)
        if not folder.is_dir():
            if folder.exists() or not _may_be_hub_id(given):
                yield f"--{flag} {given}: neither a folder nor a hub repository (owner/name)"
            continue
        missing = [n for n in ("config.json", "model.safetensors") if not (folder / n).is_file()]
        if missing:
            export = folder / run_folder.EXPORT
            hint = f"; the export is {export}" if (export / "config.json").is_file() else ""
            yield f"--{flag} {given}: not an exported model: {missing[0]} is missing{hint}"
            continue
        earlier = load_model_config(folder / "config.json")
        if options.parameterisation is None:  # that of the weights will be taken
            found = earlier.model.diffusion.parameterisation
            config = config.replacing("model.diffusion.parameterisation", found)
        if flag == "distill_from":
            refused = teacher_problems(earlier, config)
        else:
            refused, _ = stage_differences(earlier, config)
        if refused:
            yield f"--{flag} {given}: another architecture: {'; '.join(refused)}"


def _checkpoint(options: argparse.Namespace, config: ModelConfig) -> Iterator[str]:
    if options.checkpoint is None:
        return
    if options.checkpoint != "last":
        if not Path(options.checkpoint).is_file():
            yield f"--checkpoint {options.checkpoint}: no such file"
    elif options.export_only and not run_folder.numbered_checkpoints(options.output_dir):
        yield f"--export_only: there is no checkpoint in {options.output_dir} to export"


def _text(options: argparse.Namespace, config: ModelConfig) -> Iterator[str]:
    for path in options.caption_file or []:
        if not path.is_file():
            yield f"--caption_file {path}: no such file"
    if not config.stage.text or config.text is None:
        return
    try:
        name = located(config.text.model)
    except UserError as error:
        yield f"model.conditioning.configs: prompt: {error}"
        return
    if not Path(name).is_dir() and not _may_be_hub_id(name, may_be_bare=True):
        key = "t5_model_name" if config.text.kind == "t5" else "model_name"
        yield f"model.conditioning.configs: prompt: {key} is {name}: no such folder"


def _packages(options: argparse.Namespace, config: ModelConfig) -> Iterator[str]:
    package = LOGGER_PACKAGES.get(options.logger)
    if package and find_spec(package) is None:
        yield f"--logger {options.logger}: not installed; pip install {package}"


def _machine(options: argparse.Namespace, config: ModelConfig) -> Iterator[str]:
    if options.accelerator == "gpu" and sys.platform == "linux":
        if not any(Path("/dev", name).exists() for name in GPU_DEVICES):
            yield "--accelerator gpu: this machine has no GPU; allowed: auto, cpu"


def _may_be_hub_id(name: str, may_be_bare: bool = False) -> bool:
    slashes = name.count("/")
    local = Path(name).exists() or name.startswith((".", "/", "~"))
    return not local and (slashes == 1 or (may_be_bare and slashes == 0))

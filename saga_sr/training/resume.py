"""What may change when a run is resumed: every flag and config key, sorted by what it touches.

A resumed run must learn what the undisturbed one would have learnt. How that is computed, and what
is seen of it, may change; and where a setting only brings something (weights, files, a text
encoder), what it brings is compared, not how it is spelled.
"""

import math
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saga_sr.config import PROMPT_ID, ModelConfig, parse_model_config
from saga_sr.support.differences import differences
from saga_sr.support.environment import plain_options
from saga_sr.support.errors import UserError

PROBE_TOLERANCE = 1e-3  # folding a weight norm rounds otherwise from one torch to the next
TEXT_PROBE_TOLERANCE = 2e-2  # T5 in half precision on a GPU, in float32 on a CPU


class Touches(Enum):
    """What a setting has an effect on."""

    LEARNT = "what is learnt: must stay"
    TEXT = "what is learnt, where the stage has text"
    BRINGS = (
        "something that is compared itself: files, weights, clips per step, config, text encoder"
    )
    COMPUTED = "how it is computed: equal to rounding"
    SEEN = "validation, log, files, export"


_LEARNT, _TEXT, _BRINGS = Touches.LEARNT, Touches.TEXT, Touches.BRINGS
_COMPUTED, _SEEN = Touches.COMPUTED, Touches.SEEN

FLAGS: Mapping[str, Touches] = {
    "accelerator": _COMPUTED,
    "accumulate_grad_batches": _BRINGS,
    "activation_checkpointing": _COMPUTED,
    "allow_random_pretransform": _BRINGS,
    "augment": _LEARNT,
    "batch_size": _BRINGS,
    "caption_file": _TEXT,
    "checkpoint": _SEEN,
    "checkpoint_every_n_steps": _SEEN,
    "compile": _COMPUTED,
    "compute_rolloff": _BRINGS,
    "degradations": _LEARNT,
    "detect_anomaly": _SEEN,
    "devices": _BRINGS,
    "disable_val_lowfreq_replace": _SEEN,
    "distill_from": _BRINGS,
    "distill_steps": _BRINGS,
    "ema_on_cpu": _COMPUTED,
    "export_only": _SEEN,
    "fast_dev_run": _SEEN,
    "guidance_acoustic": _SEEN,
    "guidance_text": _SEEN,
    "init_from": _BRINGS,
    "keep_checkpoints": _SEEN,
    "learning_rate": _BRINGS,
    "logger": _SEEN,
    "lowpass_on_device": _COMPUTED,
    "lowpass_resample": _LEARNT,
    "max_steps": _SEEN,
    "min_bandwidth_hz": _BRINGS,
    "model_config": _BRINGS,
    "num_nodes": _BRINGS,
    "num_workers": _COMPUTED,
    "optimizer": _LEARNT,
    "output_dir": _SEEN,
    "overfit_clips": _LEARNT,
    "overwrite": _SEEN,
    "parameterisation": _BRINGS,
    "precision": _COMPUTED,
    "pretrained_ckpt": _BRINGS,
    "pretransform_ckpt": _BRINGS,
    "seed": _LEARNT,
    "strategy": _COMPUTED,
    "teacher_steps": _LEARNT,
    "train_dir": _BRINGS,
    "use_caption": _TEXT,
    "val_cutoff_hz": _SEEN,
    "val_dir": _SEEN,
    "val_emulate_linear_steps": _SEEN,
    "val_every_n_steps": _SEEN,
    "val_num_clips": _SEEN,
    "val_num_pictures": _SEEN,
    "val_num_steps": _SEEN,
    "val_num_train_clips": _SEEN,
}

# A key stands for what lies below it, as far as that has no entry of its own; * is any position.
CONFIG: Mapping[str, Touches] = {
    "model_type": _LEARNT,
    "sample_size": _LEARNT,
    "sample_rate": _LEARNT,
    "audio_channels": _LEARNT,
    "model.pretransform": _LEARNT,
    "model.pretransform.iterate_batch": _COMPUTED,
    "model.conditioning": _LEARNT,
    "model.conditioning.configs.*.type": _BRINGS,
    "model.conditioning.configs.*.config.t5_model_name": _BRINGS,
    "model.conditioning.configs.*.config.model_name": _BRINGS,
    "model.conditioning.configs.*.config.max_length": _TEXT,
    "model.io_channels": _LEARNT,
    "model.diffusion.type": _LEARNT,
    "model.diffusion.diffusion_objective": _LEARNT,
    "model.diffusion.cross_attention_cond_ids": _LEARNT,
    "model.diffusion.global_cond_ids": _LEARNT,
    "model.diffusion.config": _LEARNT,
    "model.diffusion.compute_rolloff": _LEARNT,
    "model.diffusion.parameterisation": _LEARNT,
    "model.diffusion.preconditioning_std": _LEARNT,
    "model.diffusion.null_lr_value": _LEARNT,
    "model.diffusion.patch": _LEARNT,
    "model.diffusion.student_steps": _LEARNT,
    "training.learning_rate": _LEARNT,
    "training.betas": _LEARNT,
    "training.weight_decay": _LEARNT,
    "training.lr_schedule": _LEARNT,
    "training.use_ema": _LEARNT,
    "training.ema": _LEARNT,
    "training.timestep_sampler": _LEARNT,
    "training.dropout": _LEARNT,
    "training.degradations": _LEARNT,
    "training.gradient_clip_norm": _LEARNT,
    "sampling.solver": _SEEN,
    "sampling.num_steps": _SEEN,
    "sampling.emulate_linear_steps": _SEEN,
    "sampling.guidance_acoustic": _SEEN,
    "sampling.guidance_text": _SEEN,
    "sampling.level_temperature": _SEEN,
    "sampling.level_gain_db": _SEEN,
    "sampling.target_rolloff": _SEEN,
}

# What the val/ numbers depend on beside the model.
VALIDATION_FLAGS = ("val_dir", "val_num_clips", "val_cutoff_hz", "disable_val_lowfreq_replace")


def config_touches(path: str) -> Touches | None:
    """What a config key touches, by the longest entry of `CONFIG` above it; None: not sorted."""
    parts = re.sub(r"\.\d+(?=\.|$)", ".*", path).split(".")
    above = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((CONFIG[name] for name in above if name in CONFIG), None)


# --- what settings bring ----------------------------------------------------------------------
def probes(tensors: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """[projection on a fixed wave, norm] of each tensor: unlike hashes, they can be compared with a
    tolerance."""
    flat = {
        name: value.detach().double().flatten().cpu()
        for name, value in tensors.items()
        if value.is_floating_point()
    }
    longest = max((value.numel() for value in flat.values()), default=0)
    wave = torch.cos(torch.arange(longest, dtype=torch.float64) + 0.5)
    return {n: [float(v @ wave[: v.numel()]), float(v.norm())] for n, v in flat.items()}


def _same_probe(old: Sequence[float] | None, new: Sequence[float] | None, tolerance: float) -> bool:
    if old is None or new is None:
        return old is new
    limit = tolerance * max(old[1], new[1])
    return all(math.isclose(a, b, rel_tol=0, abs_tol=limit) for a, b in zip(old, new, strict=True))


def clips_per_step(options: Namespace) -> int:
    """Over all processes."""
    processes = options.devices * options.num_nodes
    return int(options.batch_size * options.accumulate_grad_batches * processes)


def settings(options: Namespace, config: ModelConfig) -> dict[str, Any]:
    """Of what `refuse_changes` compares, all that is known before data and weights are read."""
    return {
        "options": plain_options(options),
        "config": config.model_dump(mode="json"),
        "global_batch": clips_per_step(options),
    }


# --- the comparison ---------------------------------------------------------------------------
def refuse_changes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Compare what a checkpoint was made with to what it is resumed with.

    Args:
        stored: `settings`, ``data`` (a fingerprint), ``frozen`` (`probes` of the weights that are
            not trained) and ``text_encoder`` (its probe) of the checkpoint.
        current: the same of this run, as far as it is known yet.

    Raises:
        UserError: lists each difference that would change what is learnt.
    """
    checks = (_brought, _flags, _config)
    if problems := [problem for check in checks for problem in check(stored, current)]:
        raise UserError.listing(
            "--checkpoint: this run would learn something else than the one to resume. Go on "
            "without the change, or start a new run from its export (--init_from)",
            problems,
        )


def _has_text(identity: Mapping[str, Any]) -> bool:
    return PROMPT_ID in identity["config"]["model"]["diffusion"]["cross_attention_cond_ids"]


def _brought(stored: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[str]:
    if stored["global_batch"] != current["global_batch"]:
        yield (
            "clips per optimiser step (batch_size x accumulate_grad_batches x processes): "
            f"{stored['global_batch']} -> {current['global_batch']}"
        )
    if "data" in current and stored["data"] != current["data"]:
        yield "the files of --train_dir are not the same (names, order or lengths)"
    texts = stored.get("texts"), current.get("texts")  # not of older checkpoints
    if None not in texts and texts[0] != texts[1]:
        yield "the captions and transcripts of --train_dir are not the same"
    if "frozen" in stored and "frozen" in current:
        old, new = stored["frozen"], current["frozen"]
        others = [
            name
            for name in sorted({*old, *new})
            if not _same_probe(old.get(name), new.get(name), PROBE_TOLERANCE)
        ]
        if others:
            parts = sorted({name.split(".")[0] for name in others})
            yield (
                f"the weights that are not trained ({', '.join(parts)}) are others: give the same "
                "--pretrained_ckpt, --pretransform_ckpt, --init_from or --distill_from"
            )


def _flags(stored: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[str]:
    must_stay = {Touches.LEARNT, *([Touches.TEXT] if _has_text(stored) else [])}
    for name, old in stored["options"].items():  # not newer flags
        new = current["options"].get(name)
        same = old == new or (name == "caption_file" and same_files(old, new))
        if FLAGS.get(name, Touches.SEEN) in must_stay and not same:
            yield f"--{differences(old, new, name)[0][1]}"


def _config(stored: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[str]:
    # Read anew: keys that are younger than the checkpoint have their defaults.
    old = parse_model_config(stored["config"], origin="--checkpoint").model_dump(mode="json")
    for path, line in differences(old, current["config"]):
        touches = config_touches(path)
        if touches is Touches.BRINGS:  # the text encoder
            if _has_text(stored) and not _same_encoder(stored, current):
                yield line
        elif touches is Touches.LEARNT or (touches is Touches.TEXT and _has_text(stored)):
            yield line


def _same_encoder(stored: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """By what two text encoders make of one text; False where that is not known of one of them:
    then their names count."""
    if "text_encoder" not in current:  # not loaded yet
        return True
    old, new = stored.get("text_encoder"), current["text_encoder"]
    return old is not None and new is not None and _same_probe(old, new, TEXT_PROBE_TOLERANCE)


def same_files(old: Any, new: Any) -> bool:
    """Whether two values of a flag name the same files: by place, or by content."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(same_files(a, b) for a, b in zip(old, new, strict=True))
    if not isinstance(old, str) or not isinstance(new, str):
        return False
    first, second = Path(old), Path(new)
    if first.resolve() == second.resolve():
        return True
    try:
        return first.read_bytes() == second.read_bytes()
    except OSError:
        return False


def other_course(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """That the learning rate takes another course, where its fall hangs on --max_steps."""
    steps = stored["options"]["max_steps"], current["options"]["max_steps"]
    share = current["config"]["training"]["lr_schedule"]["cooldown_fraction"]
    if not share or steps[0] == steps[1]:
        return None
    old, new = (f"from step {number - round(share * number)} to {number}" for number in steps)
    return f"--max_steps {steps[1]}: the learning rate falls to zero {new}, not {old}"


def validation_changes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """In what the val/ numbers of a resumed run are made by other rules."""
    found = []
    for name in VALIDATION_FLAGS:
        old, new = stored["options"].get(name), current["options"].get(name)
        if name in stored["options"] and old != new and not same_files(old, new):
            found.append(f"--{differences(old, new, name)[0][1]}")
    rules = (stored["config"]["sampling"], current["config"]["sampling"])
    return found + [line for _, line in differences(*rules, "sampling")]

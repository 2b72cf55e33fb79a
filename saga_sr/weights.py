"""Weights in and out of a model: exported folders, Stable Audio Open, the VAE alone.

Only safetensors and ``torch.load(weights_only=True)`` are used: no pickle of a stranger runs here.
Whatever does not fit is said; nothing is skipped in silence.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saga_sr.config import (
    PROMPT_ID,
    ModelConfig,
    load_model_config,
    stage_differences,
    teacher_problems,
)
from saga_sr.flow import Parameterisation
from saga_sr.pretransform import AutoencoderPretransform
from saga_sr.support.errors import UserError, first_line
from saga_sr.support.files import atomic_path, write_json_atomic

if TYPE_CHECKING:
    from saga_sr.model import SAGASRModel


CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
HUB_FILES = (CONFIG_NAME, WEIGHTS_NAME)
STABLE_AUDIO_CONFIG = "model_config.json"


# Stable Audio Open's names -> ours. Its T5 is not in its checkpoints.
_STABLE_AUDIO_PREFIXES = {
    "model.model.": "dit.",
    "conditioner.conditioners.prompt.proj_out.": "conditioners.prompt.",
    "conditioner.conditioners.": "conditioners.",
    "pretransform.model.": "pretransform.model.",
}

# What its diffusion_objective says that a DiT answers; without one, "v".
_OBJECTIVES: dict[str, Parameterisation] = {
    "v": "v",
    "rectified_flow": "flow",
    "rf_denoiser": "flow",
}

# Input layers of the DiT that see the LR latent on extra channels.
_WIDENED = ("dit.preprocess_conv.weight", "dit.transformer.project_in.weight")


# --- exported folders ---------------------------------------------------------------------------
def save_folder(model: "SAGASRModel", folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write ``config.json`` and ``model.safetensors`` into ``folder``; returns the folder."""
    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for name, value in model.state_dict().items()
    }
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json_atomic(folder / CONFIG_NAME, model.config.model_dump(mode="json"))
    return folder


def load_folder(
    folder_or_hub_id: Path | str, create: Callable[[ModelConfig], "SAGASRModel"]
) -> "SAGASRModel":
    """See `SAGASRModel.from_pretrained`."""
    folder = exported_folder(folder_or_hub_id)
    config = load_model_config(folder / CONFIG_NAME)
    tensors = {name: value.float() for name, value in read_tensors(folder / WEIGHTS_NAME).items()}
    _check_size(config, tensors, folder)
    model = create(config)
    fold_weight_norm(model)
    load_exactly(model, tensors, origin=str(folder / WEIGHTS_NAME))
    return model.eval()


def exported_folder(folder_or_hub_id: Path | str) -> Path:
    """The local folder of an exported model.

    Raises:
        UserError: there is none, or a file of it is missing.
    """
    folder = _local_folder(folder_or_hub_id, HUB_FILES)
    for name in HUB_FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: not an exported model: {name} is missing (an export holds "
                f"{' and '.join(HUB_FILES)})"
            )
    return folder


def _check_size(config: ModelConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse a config that asks for more weights than there are, before memory is taken for it."""
    asked, held = config.least_parameters, sum(value.numel() for value in tensors.values())
    if asked > held:
        raise UserError(
            f"{folder / CONFIG_NAME}: asks for {asked / 1e6:,.1f} million weights or more "
            f"({4 * asked / 1e9:,.1f} GB), {WEIGHTS_NAME} holds "
            f"{held / 1e6:,.1f} million: it is not the config of these weights"
        )


def fold_weight_norm(model: "SAGASRModel") -> None:
    """Fold the frozen VAE's weight norm, if it has one (see `AutoencoderPretransform`)."""
    if isinstance(model.pretransform, AutoencoderPretransform):
        model.pretransform.fold_weight_norm()


def _local_folder(folder_or_hub_id: Path | str, patterns: tuple[str, ...]) -> Path:
    """A local folder as it is, or the files ``patterns`` of a hub repository ``owner/name``."""
    path = Path(folder_or_hub_id)
    if path.is_dir():
        return path
    name = str(folder_or_hub_id)
    if path.exists() or path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise UserError(f"{name}: neither a folder nor a hub repository (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = first_line(error)
        raise UserError(
            f"{name}: no such folder here, and the hub repository cannot be fetched ({reason}). "
            f"Download {', '.join(patterns)} by hand and pass their folder"
        ) from error


# --- reading and fitting tensors ----------------------------------------------------------------
def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .ckpt/.pt (its ``state_dict`` where it has one).

    Raises:
        UserError: missing, truncated, or holding anything but plain tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: corrupt, or refused for holding more than tensors") from error
    except Exception as error:  # whatever the bytes provoke in torch, zipfile or safetensors
        raise UserError(f"{path}: truncated or corrupt ({first_line(error)})") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if state is None or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state_dict of tensors")
    return state


def exported_config(folder_or_hub_id: Path | str) -> ModelConfig:
    """The config of an exported model.

    Raises:
        UserError: nothing is there, or it is no valid config.
    """
    return load_model_config(_local_folder(folder_or_hub_id, HUB_FILES) / CONFIG_NAME)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Load all of ``tensors`` into all of ``module``; any difference is an error that lists it."""
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, the config makes {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        more = [f"... and {len(problems) - 12} more"] if len(problems) > 12 else []
        raise UserError.listing(f"{origin}: not the weights of this config", problems[:12] + more)
    module.load_state_dict(dict(tensors))


@dataclass
class LoadReport:
    """What became of the tensors of a checkpoint."""

    origin: str
    loaded: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.origin}: {len(self.loaded)} tensors loaded"]
        lines += [f"  {note}" for note in self.notes]
        for kind in ("widened", "missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            if names:
                shown = ", ".join(_families(names))
                lines.append(f"  {kind} ({len(names)}): {shown}")
        return "\n".join(lines)


def _families(names: list[str], depth: int = 3) -> list[str]:
    """Tensor names by their first ``depth`` parts, with counts, so that a report stays readable."""
    counts: dict[str, int] = {}
    for name in names:
        family = ".".join(name.split(".")[:depth])
        counts[family] = counts.get(family, 0) + 1
    return [f if n == 1 else f"{f}.* x{n}" for f, n in counts.items()]


def _load_what_fits(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    expected: Callable[[str], bool],
    report: LoadReport,
) -> None:
    """Copy tensors whose name and shape agree, widening the DiT's input layers; report the rest."""
    own = model.state_dict()
    for name, value in tensors.items():
        if name not in own:
            report.unexpected.append(name)
        elif value.shape == own[name].shape:
            own[name].copy_(value)
            report.loaded.append(name)
        elif name in _WIDENED and _is_narrower(value, own[name]):
            _widen_(own[name], value)
            report.widened.append(name)
        else:
            shapes = f"{list(value.shape)} for {list(own[name].shape)}"
            report.mismatched.append(f"{name} {shapes}")
    report.missing = [name for name in own if name not in tensors and expected(name)]


def _is_narrower(value: Tensor, target: Tensor) -> bool:
    return value.ndim == target.ndim and all(
        a <= b for a, b in zip(value.shape, target.shape, strict=True)
    )


def _widen_(target: Tensor, value: Tensor) -> None:
    """``value`` in the corner of ``target``, zeros elsewhere: new channels have no effect."""
    target.zero_()
    target[tuple(slice(0, size) for size in value.shape)] = value


# --- Stable Audio Open --------------------------------------------------------------------------
def load_stable_audio(model: "SAGASRModel", path_or_hub_id: Path | str) -> LoadReport:
    """Start from Stable Audio Open: VAE, number and text conditioners, and the widened DiT.

    The DiT's input layers get zeros for the LR latent's channels, so the widened DiT computes what
    the original does for any LR latent (and the same other inputs).

    Raises:
        UserError: unreadable, or nothing of it fits the config's DiT.
    """
    report = LoadReport(str(path_or_hub_id))
    raw = read_tensors(_checkpoint_file(path_or_hub_id))
    _take_averages(raw, report, ema="diffusion_ema.", plain="diffusion.model.")
    tensors = _renamed(raw)
    if isinstance(model.pretransform, AutoencoderPretransform):
        _restore_weight_norm_names(model, tensors)
    _load_what_fits(model, tensors, lambda name: True, report)
    if not any(name.startswith("dit.") for name in report.loaded):
        raise UserError(f"--pretrained_ckpt {path_or_hub_id}: none of it fits the DiT\n{report}")
    if report.mismatched:
        raise UserError.listing(
            f"--pretrained_ckpt {path_or_hub_id}: made for other dimensions", report.mismatched[:12]
        )
    return report


def stable_audio_parameterisation(path_or_hub_id: Path | str) -> tuple[Parameterisation, str]:
    """What a Stable Audio checkpoint's DiT answers (`saga_sr.flow.network_gains`).

    Its config is looked for in the checkpoint itself (stable-audio-tools' training writes it
    there), then beside it (``model_config.json``).

    Returns:
        The parameterisation, and in words how it is known.

    Raises:
        UserError: the config names an objective that is not known here.
    """
    path, config = Path(path_or_hub_id), None
    if path.is_file() and path.suffix != ".safetensors":
        config = _embedded_config(path)
    where = str(path_or_hub_id)
    if config is None:
        folder = path.parent if path.is_file() else _local_folder(path, (STABLE_AUDIO_CONFIG,))
        beside = folder / STABLE_AUDIO_CONFIG
        if not beside.is_file():
            return "v", f"no {STABLE_AUDIO_CONFIG} beside {where}: as Stable Audio Open 1.0"
        where = str(beside)
        config = _json_object(beside)
    diffusion = (config.get("model") or {}).get("diffusion") or {}
    objective = diffusion.get("diffusion_objective", "v")
    if objective not in _OBJECTIVES:
        allowed = ", ".join(_OBJECTIVES)
        raise UserError(f"{where}: diffusion_objective is {objective!r}; known: {allowed}")
    return _OBJECTIVES[objective], f"diffusion_objective {objective} of {where}"


def _embedded_config(path: Path) -> dict[str, Any] | None:
    """The model config inside a checkpoint; None without one, or where it cannot be read."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # `read_tensors` will say what is wrong
        return None
    config = loaded.get("model_config") if isinstance(loaded, dict) else None
    return config if isinstance(config, dict) else None


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object is expected")
    return value


def load_pretransform(model: "SAGASRModel", path: Path | str) -> LoadReport:
    """Load the VAE alone, from its own checkpoint or from a whole Stable Audio Open file.

    Raises:
        UserError: unreadable, or not exactly this VAE.
    """
    if not isinstance(model.pretransform, AutoencoderPretransform):
        raise UserError("--pretransform_ckpt: the config's pretransform has no weights")
    report, tensors = LoadReport(str(path)), read_tensors(_checkpoint_file(path))
    _take_averages(tensors, report, ema="autoencoder_ema.", plain="autoencoder.")
    prefixes = ("diffusion.pretransform.model.", "pretransform.model.", "autoencoder.", "model.")
    for prefix in prefixes:
        inner = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        if inner:
            tensors = inner
            break
    # Training checkpoints of an autoencoder also hold its discriminator and its losses.
    parts = ("encoder.", "decoder.", "bottleneck.")
    tensors = {name: value.float() for name, value in tensors.items() if name.startswith(parts)}
    network = model.pretransform.model
    if not any(name.endswith("weight_g") for name in tensors):
        fold_weight_norm(model)
    load_exactly(network, tensors, origin=f"--pretransform_ckpt {path}")
    report.loaded = list(tensors)
    return report


def _restore_weight_norm_names(model: "SAGASRModel", tensors: dict[str, Tensor]) -> None:
    """Fold the VAE's weight norm where the checkpoint stores the product already."""
    ours = [name for name in tensors if name.startswith("pretransform.model.")]
    if ours and not any(name.endswith("weight_g") for name in ours):
        fold_weight_norm(model)


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stable Audio Open's names as ours; names of no known part keep theirs and are reported."""
    result = {}
    for name, value in tensors.items():
        name = name.removeprefix("diffusion.")  # a training checkpoint that was not unwrapped
        for theirs, ours in _STABLE_AUDIO_PREFIXES.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        result[name] = value
    return result


def _take_averages(tensors: dict[str, Tensor], report: LoadReport, ema: str, plain: str) -> None:
    """In place: the averages (EMA) of a raw training checkpoint under the names of what they are
    averages of.

    stable-audio-tools' training checkpoints hold both; its own export takes the averages.

    Args:
        tensors: by their names in the checkpoint.
        report: gets a note of what was taken.
        ema: prefix of the ``EMA`` object, such as ``diffusion_ema.``.
        plain: prefix of the module that it averages, such as ``diffusion.model.``.
    """
    averages = f"{ema}ema_model."
    if not any(name.startswith(averages) for name in tensors):
        if any(name.startswith(plain) for name in tensors):
            report.notes.append("a raw training checkpoint without averages: weights as trained")
        return
    for name in [name for name in tensors if name.startswith(ema)]:
        value = tensors.pop(name)
        if name.startswith(averages):
            tensors[plain + name.removeprefix(averages)] = value
    report.notes.append(f"a raw training checkpoint: its averaged weights are taken ({averages}*)")


def _checkpoint_file(path_or_hub_id: Path | str) -> Path:
    """A local checkpoint file, or the one of a folder or hub repository."""
    path = Path(path_or_hub_id)
    if path.is_file():
        return path
    names = ("model.safetensors", "model.ckpt")
    for name in names:  # the second one is fetched only where the first is not there
        folder = _local_folder(path_or_hub_id, (name,))
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{path_or_hub_id}: no {' or '.join(names)} in it")


# --- an earlier stage ---------------------------------------------------------------------------
def load_stage(model: "SAGASRModel", folder_or_hub_id: Path | str) -> LoadReport:
    """Start from the exported weights of an earlier stage (F0 for F1, F1 for F2).

    Raises:
        UserError: the folder's architecture is another one; the differing keys are listed.
    """
    folder = exported_folder(folder_or_hub_id)
    earlier, origin = load_model_config(folder / CONFIG_NAME), f"--init_from {folder_or_hub_id}"
    refused, said = stage_differences(earlier, model.config)
    if refused:
        raise UserError.listing(f"{origin}: another architecture", refused)
    fold_weight_norm(model)
    tensors = {name: value.float() for name, value in read_tensors(folder / WEIGHTS_NAME).items()}
    report = LoadReport(str(folder_or_hub_id), notes=[f"differs: {line}" for line in said])
    own = model.state_dict()
    projection = f"conditioners.{PROMPT_ID}."  # none where the encoder's width needs none
    shapes = [
        {name: value.shape for name, value in state.items() if name.startswith(projection)}
        for state in (own, tensors)
    ]
    if shapes[0] != shapes[1]:  # another text encoder's, where there was no text to train it
        tensors = {n: v for n, v in tensors.items() if n not in shapes[1]}
        tensors |= {name: own[name] for name in shapes[0]}
        report.notes.append(f"{projection}*: {earlier.stage} has not trained it; it starts anew")
    load_exactly(model, tensors, origin=origin)
    report.loaded = list(tensors)
    return report


def load_teacher(model: "SAGASRModel", folder_or_hub_id: Path | str) -> "SAGASRModel":
    """Start a student from the exported model that is to teach it.

    Returns:
        The teacher, frozen and in evaluation mode; the pretransform is the student's own.

    Raises:
        UserError: it cannot teach this student; says why.
    """
    teacher = type(model).from_pretrained(folder_or_hub_id).requires_grad_(False)
    if problems := teacher_problems(teacher.config, model.config):
        raise UserError.listing(f"--distill_from {folder_or_hub_id}: it cannot teach", problems)
    fold_weight_norm(model)
    started = {n: v for n, v in model.state_dict().items() if n.startswith("step_embed.")}
    load_exactly(model, teacher.state_dict() | started, f"--distill_from {folder_or_hub_id}")
    teacher.pretransform = model.pretransform  # once in memory
    return teacher

"""The device that a flag names."""

import re

import torch

from saga_sr.support.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device that a ``--device`` flag names; ``auto`` takes the best there is.

    Raises:
        UserError: there is no such device, or none on this machine.
    """
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device(next((kind for kind, there in count.items() if there), "cpu"))
    named = re.fullmatch(r"(cpu|cuda|mps)(?::(\d+))?", name)
    if named is None:
        raise UserError(f"--device {name}: no device; allowed: auto, cpu, cuda, cuda:N, mps")
    if int(named[2] or 0) >= count.get(named[1], 1):
        raise UserError(f"--device {name}: there is none on this machine; allowed: auto, cpu")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """The precision that a ``--precision`` flag names, one of Lightning's.

    ``auto`` is bf16-mixed where the device multiplies bfloat16, and 32-true elsewhere: emulated, it
    is the slower one, on a CPU by a factor of three.
    """
    if name != "auto":
        return name
    return "bf16-mixed" if multiplies_bfloat16(device) else "32-true"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware does: NVIDIA's from Ampere on, CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def check_accelerator(name: str, devices: int) -> None:
    """Refuse an ``--accelerator`` that is not on this machine, and more ``--devices`` than it has.

    Raises:
        UserError: says what there is.
    """
    gpus, has_mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    found = f"{gpus} GPUs" if gpus else "no GPU that torch can use"
    if name == "gpu" and not (gpus or has_mps):
        raise UserError(f"--accelerator gpu: this machine has {found}; allowed: auto, cpu")
    if name == "mps" and not has_mps:
        raise UserError("--accelerator mps: there is none on this machine; allowed: auto, cpu")
    if name in ("gpu", "auto") and gpus and devices > gpus:
        raise UserError(f"--devices {devices}: this machine has {found}")

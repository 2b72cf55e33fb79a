"""The device that a flag names."""

import torch

from saga_sr.support.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device that a ``--device`` flag names; ``auto`` takes the best there is.

    Raises:
        UserError: it is not on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, there in available.items() if there), "cpu"))
    if not available.get(name, True):
        raise UserError(f"--device {name}: there is none on this machine; allowed: auto, cpu")
    return torch.device(name)

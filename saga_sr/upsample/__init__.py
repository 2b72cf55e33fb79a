"""Audio files of any length, rate and channel count, at full bandwidth."""

from typing import Any

# Imported on first use: the flags are read without torch.
_EXPORTS = {
    "upsample": "saga_sr.upsample.options",
    "UpsampleOptions": "saga_sr.upsample.options",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_EXPORTS[name]), name)

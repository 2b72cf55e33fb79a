"""What comes with the package, in a checkout and in a wheel: the small model and the configs."""

from pathlib import Path

from saga_sr.support.errors import UserError

MODEL = "models/saga-sr-demo"
_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries them inside (setup.py); in a checkout they lie beside the package.
_HOMES = (_PACKAGE.parent, _PACKAGE / "shipped")


def shipped_file(name: str) -> Path | None:
    """Where a file or folder that is shipped lies, such as ``saga_model_config.json``."""
    return next((home / name for home in _HOMES if (home / name).exists()), None)


def shipped_model() -> str:
    """Folder of the shipped model.

    Raises:
        UserError: this installation came without it.
    """
    folder = shipped_file(MODEL)
    if folder is None:
        raise UserError("--model: this installation has no model of its own; give one")
    return str(folder)

"""Packages that not everybody needs: imported where they are used."""

import importlib
from typing import Any

from saga_sr.support.errors import UserError


def optional(package: str, flag: str, hint: str) -> Any:
    """Import an extra.

    Raises:
        UserError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{flag}: {error}; {hint}") from error

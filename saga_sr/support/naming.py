"""``NAME=FOLDER`` on the command line: what a row of a table or a curve is called."""

from collections.abc import Sequence
from pathlib import Path

from saga_sr.support.errors import UserError


def named_folders(given: Sequence[str], flag: str) -> list[tuple[str, str]]:
    """(name, folder) of ``NAME=FOLDER`` or ``FOLDER``; a run's ``export`` is named after the run.

    Raises:
        UserError: two have one name.
    """
    pairs = [_named(text) for text in given]
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{flag}: two are called {', '.join(twice)}; name them: NAME=FOLDER")
    return pairs


def _named(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if equals and not Path(text).is_dir():
        return name, folder
    path = Path(text).resolve()
    return (path.parent if path.name == "export" else path).name, text

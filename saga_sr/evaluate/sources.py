"""Whether what is evaluated comes from where a model was trained.

A model's folder may hold ``sources.json``, the part of its card that a program reads: the packages
whose sounds it was trained on, and how the names of their files begin in a corpus that
`scripts/fetch_corpus.py` made. The package of a file is what the corpus' ``manifest.json`` says,
in the evaluated folder or the one above it; without one, what its name begins with.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path, PurePosixPath
from typing import Any

from saga_sr.support.errors import UserError
from saga_sr.support.files import write_json_atomic

SOURCES_NAME = "sources.json"
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class Shared:
    """What a folder shares with the card of a model.

    Attributes:
        model: name of its row.
        clips: package -> how many evaluated clips are from it; None: the card lists no sources.
        total: all evaluated clips.
    """

    model: str
    clips: Mapping[str, int] | None
    total: int

    def __str__(self) -> str:
        if self.clips is None:
            return f"What {self.model} was trained on is not known: no {SOURCES_NAME} beside it."
        if not self.clips:
            return f"No clip is from a source that {self.model} was trained on, as far as known."
        listed = ", ".join(f"{package} ({count})" for package, count in self.clips.items())
        return (
            f"{sum(self.clips.values())} of {self.total} clips are from sources that {self.model} "
            f"was trained on: {listed}. At best other parts of them were held out."
        )


def card_sources(folder: Path) -> dict[str, str] | None:
    """Package -> how its files' names begin, from the card in ``folder``; None if it has no list.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / SOURCES_NAME
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {str(package): str(entry["prefix"]) for package, entry in raw.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a list of sources ({error!r}); expected package -> licence, prefix, hours"
        ) from error


def shared_sources(model: str, model_folder: Path, data: Path, files: Sequence[str]) -> Shared:
    """Look for the sources of evaluated files on a model's card.

    Args:
        model: name of its row.
        model_folder: with its card.
        data: the evaluated folder.
        files: paths of the evaluated files below it.
    """
    known = card_sources(model_folder)
    if known is None:
        return Shared(model, None, len(files))
    by_file = _manifest(data)
    packages = [by_file.get(file) or _by_name(file, known) for file in files]
    counts = Counter(package for package in packages if package in known)
    return Shared(model, dict(counts.most_common()), len(files))


def _by_name(file: str, known: Mapping[str, str]) -> str | None:
    """The package whose prefix a name begins with, the longest of several."""
    name = PurePosixPath(file).name
    fitting = [package for package, prefix in known.items() if prefix and name.startswith(prefix)]
    return max(fitting, key=lambda package: len(known[package]), default=None)


def _manifest(data: Path) -> dict[str, str]:
    """File below ``data`` -> package, where a corpus' manifest says it."""
    data = data.resolve()
    for corpus in (data, data.parent):
        try:
            manifest = json.loads((corpus / MANIFEST_NAME).read_text(encoding="utf-8"))
            below = data.relative_to(corpus)
            return {
                PurePosixPath(record["file"]).relative_to(below.as_posix()).as_posix(): package
                for package, entry in manifest.items()
                for record in entry["files"]
                if PurePosixPath(record["file"]).is_relative_to(below.as_posix())
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # none, or somebody else's
    return {}


def write_sources(manifest: Mapping[str, Any], folder: Path, full_band: bool) -> Path:
    """Write ``sources.json`` of a model that was trained on a fetched corpus.

    Args:
        manifest: of the corpus.
        folder: of the model.
        full_band: whether it was trained on ``train_fullband`` rather than on all of ``train``.
    """
    sources = {}
    for package, entry in manifest.items():
        names = [PurePosixPath(record["file"]).name for record in entry["files"]]
        heard = [
            record["seconds"]
            for record in entry["files"]
            if record["split"] == "train" and (record["full_band"] or not full_band)
        ]
        if heard:
            prefix = commonprefix(names)  # noqa: RUF071 (of names, not of folders)
            sources[package] = {
                "licence": entry["licence"],
                "prefix": prefix[: prefix.rfind("_") + 1],
                "hours": round(sum(heard) / 3600, 3),
            }
    write_json_atomic(folder / SOURCES_NAME, sources)
    return folder / SOURCES_NAME

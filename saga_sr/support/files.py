"""Files on disk appear whole or not at all."""

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from saga_sr.support.errors import UserError

_UMASK = os.umask(0o022)  # the only way to read it is to set it


os.umask(_UMASK)


_TOKEN_BYTES = 4
_FULL_BYTES = 1 << 20


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that replaces ``path`` when the block succeeds.

    The temporary name keeps the suffix of ``path``, since writers choose the format by it. An
    exception, a full disk included, removes the temporary file and leaves ``path`` as it was.

    Raises:
        UserError: the folder cannot be made or written.
        OSError: with ENOSPC where the disk is full, also where the writer's own error hides that.
    """
    path = Path(path)
    # Random, not the process id: containers that share a disk have equal ids.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(_TOKEN_BYTES)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: the folder cannot be made ({error.strerror})") from error
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # some writers make files that only the owner can read
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except RuntimeError as error:  # torch's and libsndfile's writers say nothing of the disk
        if not _is_full(path.parent):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _FULL_BYTES


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of ``path`` that a killed process left.

    Only for who knows that nobody else is writing ``path`` now.
    """
    token = "[0-9a-f]" * (2 * _TOKEN_BYTES)
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.{token}.tmp{path.suffix}"):
        leftover.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    """A rename may reach the disk before the data does; flushed data cannot be lost to a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: Path | str, value: Any) -> None:
    """Write ``value`` as readable UTF-8 JSON, whole or not at all."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cache_dir(purpose: str) -> Path:
    """Folder ``purpose`` in ``$SAGA_SR_CACHE``, or in saga_sr's part of the user's cache folder."""
    return Path(os.environ.get("SAGA_SR_CACHE") or user_cache_path("saga_sr")) / purpose


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

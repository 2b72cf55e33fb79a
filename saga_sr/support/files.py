"""Files on disk appear whole or not at all."""

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from platformdirs import user_cache_path

from saga_sr.support.errors import DISK_FULL, UserError, first_line

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind; leftovers then stay
    fcntl = None  # type: ignore[assignment]

_UMASK = os.umask(0o022)  # the only way to read it is to set it
os.umask(_UMASK)
_TOKEN_BYTES = 4
_FULL_BYTES = 1 << 20
_NAME_BYTES = 255  # of a name in a folder, on nearly every file system
_HASH_BYTES = 4


def fitting_name(stem: str, ending: str) -> str:
    """``stem`` + ``ending``; a name that would be too long is cut, and told apart by a hash."""
    room = _NAME_BYTES - len(os.fsencode(ending))
    data = os.fsencode(stem)
    if len(data) <= room:
        return stem + ending
    mark = "~" + hashlib.blake2b(data, digest_size=_HASH_BYTES).hexdigest()
    cut = data[: room - len(mark)]
    while cut and data[len(cut)] & 0xC0 == 0x80:  # not within a character
        cut = cut[:-1]
    return os.fsdecode(cut) + mark + ending


def native_name(path: Path | str | bytes) -> bytes | str:
    """A name as soundfile opens it: it takes text for UTF-8, and a name need not be that."""
    return os.fsencode(path) if os.name == "posix" else os.fsdecode(path)


@contextmanager
def atomic_path(path: Path | str, locked: bool = False) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that replaces ``path`` when the block succeeds.

    The temporary name keeps the suffix of ``path``, since writers choose the format by it. An
    exception, a full disk included, removes the temporary file and leaves ``path`` as it was.

    Args:
        path: of the file.
        locked: make the temporary file at once and hold a lock on it, so that `remove_leftovers` in
            another process leaves it alone.

    Raises:
        UserError: the folder cannot be made or written.
        OSError: with ENOSPC where the disk is full, also where the writer's own error hides that.
    """
    path = Path(path)
    # Random, not the process id: containers that share a disk have equal ids.
    temporary = _temporary(path, secrets.token_hex(_TOKEN_BYTES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: the folder cannot be made ({error.strerror})") from error
    lock = _locked(temporary) if locked else None
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
        if lock is not None:
            os.close(lock)


def _temporary(path: Path, token: str) -> Path:
    return path.with_name(fitting_name(f".{path.stem}", f".{token}.tmp{path.suffix}"))


def _locked(path: Path) -> int | None:
    """Make a file and lock it as long as the descriptor is open; None where there are no locks."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    # Without locks on this file system it is as if there were none.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _FULL_BYTES


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of ``path`` that a killed process left; those that a living one
    writes (`atomic_path` with ``locked``) stay."""
    marker = "0" * 2 * _TOKEN_BYTES
    before, after = _temporary(path, marker).name.split(f".{marker}.tmp")
    token = "[0-9a-f]" * (2 * _TOKEN_BYTES)
    for leftover in path.parent.glob(f"{glob.escape(before)}.{token}.tmp{glob.escape(after)}"):
        _remove_unlocked(leftover)


def _remove_unlocked(path: Path) -> None:
    if fcntl is None:
        return
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # gone already, or another user's
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:  # somebody writes it now
        pass
    finally:
        os.close(descriptor)


def _flush_to_disk(path: Path) -> None:
    """A rename may reach the disk before the data does; flushed data cannot be lost to a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all; what of a name is none, as ``\\udcff``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json_atomic(path: Path | str, value: Any) -> None:
    """Write ``value`` as readable UTF-8 JSON, whole or not at all."""
    write_text_atomic(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """Readable JSON; in ASCII where a file's name in it is not UTF-8, so that it reads back."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if is_unicode(text) else json.dumps(value, indent=indent)


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8. JSON, names of files and command lines can hold half a
    surrogate pair, which is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def exclusive_lock(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file ``path``; it goes with this process, however that ends.

    Args:
        path: made if needed, and left behind; an empty file.
        refusal: what is said where another process holds it.

    Raises:
        UserError: ``refusal``, or that the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115  (closed below, and in every fork)
    except OSError as error:
        raise UserError(f"{path.parent}: it cannot be written ({error.strerror})") from error
    with file:
        if not try_lock(file):
            raise UserError(refusal)
        # A data worker that outlives a killed run would hold the lock with its copy of the file.
        os.register_at_fork(after_in_child=file.close)
        yield


def try_lock(file: IO[bytes]) -> bool:
    """Lock an open file against other processes; False where one of them holds it.

    True without a lock where there are none: on Windows, and on file systems that know no locks.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def cache_dir(purpose: str) -> Path:
    """Folder ``purpose`` in ``$SAGA_SR_CACHE``, or in saga_sr's part of the user's cache folder."""
    return Path(os.environ.get("SAGA_SR_CACHE") or user_cache_path("saga_sr")) / purpose


def require_cache(folder: Path) -> None:
    """Make sure that a part of the cache can be written, before work is done for it.

    Raises:
        UserError: it cannot; says how to name another place.
    """
    with cache_path(folder / ".writable") as temporary:
        temporary.touch()
    (folder / ".writable").unlink(missing_ok=True)


@contextmanager
def cache_path(path: Path | str) -> Iterator[Path]:
    """`atomic_path` in the cache.

    Raises:
        UserError: the cache cannot be written; says how to name another place.
    """
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        raise UserError(
            f"{Path(path).parent}: the cache cannot be written ({first_line(error)}). Set "
            "SAGA_SR_CACHE to a folder that can"
        ) from error


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The folder of a server's temporary files, which does not outlive it.

A server that ends removes its folder. One that is killed cannot; the next server on this machine
does it then. It tells the dead from the living by a lock in the folder, which the system takes back
from a process that has ended, however it ended.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: what a killed server leaves stays
    fcntl = None  # type: ignore[assignment]

PREFIX = "saga-sr-app-"
_LOCK = "lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that only this user can look into, while the block runs.

    Removes those of servers that were killed.
    """
    parent = Path(tempfile.gettempdir())
    remove_abandoned(parent)
    with tempfile.TemporaryDirectory(
        prefix=PREFIX, dir=parent, ignore_cleanup_errors=True
    ) as folder:
        # Locked first and named then: whoever finds a lock by its name finds it taken.
        path = Path(folder) / _LOCK
        with path.with_suffix(".new").open("w") as lock:
            _taken(lock)
            path.with_suffix(".new").rename(path)
            yield Path(folder)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in ``parent`` whose servers have ended without doing so."""
    if fcntl is None:
        return
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r") as lock:
                if _taken(lock):
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # no lock: not ours to judge; or somebody else was faster
            continue


def _taken(lock: IO[str]) -> bool:
    """Whether the lock could be had; it is held until the file is closed."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

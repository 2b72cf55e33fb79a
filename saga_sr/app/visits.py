"""Who is on the page, what they have loaded, and what runs for them.

A `Visit` is one open page: its files lie in a folder of its own that nobody else can guess, what a
newer file replaces is removed, and all of it goes when the page is closed. No visit looks at what
belongs to another. `Steps` runs long work beside the page's server, so that a bar can move and the
work can be stopped.
"""

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from saga_sr.app.audio import Clip, Report

T = TypeVar("T")

TICK_S = 0.2


# ---------------------------------------------------------------------------- long work
class StoppedError(Exception):
    """The work was asked to stop."""


@dataclass
class Steps(Generic[T]):
    """Work in a thread, and how far it is; `done` is its result once the steps have ended."""

    work: Callable[[Report], T]
    stop: threading.Event
    fraction: float = 0.0
    result: T | None = None
    error: BaseException | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[float]:
        """The fraction done, a few times per second until the work ends.

        Raises:
            StoppedError: ``stop`` was set.
            Exception: whatever the work raised.
        """
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                yield self.fraction
                thread.join(TICK_S)
        finally:
            if thread.is_alive():  # nobody looks any more
                self.stop.set()
        if self.error is not None:
            raise self.error

    @property
    def done(self) -> T:
        assert self.result is not None  # only asked for after the last step
        return self.result

    def _run(self) -> None:
        try:
            self.result = self.work(self._report)
        except BaseException as error:  # raised again where it is looked at
            self.error = error

    def _report(self, fraction: float) -> None:
        self.fraction = fraction
        if self.stop.is_set():
            raise StoppedError


# ---------------------------------------------------------------------------- one page
class Visit:
    """One open page: its folder, which is made for its first file, and its files."""

    def __init__(self, root: Path) -> None:
        self.folder = root / f"visit-{secrets.token_urlsafe(16)}"
        self.clip: Clip | None = None
        self.stop = threading.Event()
        self.seen = time.monotonic()
        self._closed = False
        self._lock = threading.Lock()  # of the folder's being there
        self._folders: dict[str, Path] = {}  # of the clip and of its newest result

    def new_folder(self) -> Path:
        """Raises:
        StoppedError: the page was closed.
        """
        with self._lock:
            if self._closed:
                raise StoppedError
            self.folder.mkdir(exist_ok=True)
            return Path(tempfile.mkdtemp(dir=self.folder))

    def keep(self, kind: str, folder: Path) -> None:
        """``folder`` replaces what was kept as ``kind``."""
        self.forget(kind)
        self._folders[kind] = folder

    def forget(self, kind: str) -> None:
        if kind in self._folders:
            shutil.rmtree(self._folders.pop(kind), ignore_errors=True)

    def discard(self, folder: Path) -> None:
        """Remove a folder that nothing came of, and the visit's own where that is all it has."""
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock, suppress(OSError):
            self.folder.rmdir()  # only if it is empty

    def close(self) -> None:
        """Stop what runs and remove everything."""
        with self._lock:
            self._closed = True
        self.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, folder: Path, work: Callable[[Report], T]) -> Steps[T]:
        """Stop what runs and do ``work`` instead, which writes into ``folder``.

        Where it fails, is stopped or outlives the visit, nothing of it is left behind.
        """
        self.stop.set()
        self.stop = stop = threading.Event()

        def guarded(report: Report) -> T:
            try:
                return work(report)
            except BaseException as error:
                self.discard(folder)
                if stop.is_set() or self._closed:  # what it worked on went meanwhile, most likely
                    raise StoppedError from error
                raise
            finally:
                if self._closed:  # what was written after `close`
                    shutil.rmtree(self.folder, ignore_errors=True)

        return Steps(guarded, stop)

"""Who is on the page, what they have loaded, and whose turn it is.

A `Visit` is one open page: its files lie in a folder of its own that nobody else can guess, what a
newer file replaces is removed, and all of it goes when the page is closed, or was not heard of for
an hour. No visit looks at what belongs to another. The `Studio` holds the models, one of them in
memory, and lets one restoration run at a time. `Steps` runs long work beside the page's server, so
that a bar can move and the work can be stopped.
"""

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch

from saga_sr.app.audio import Clip, Report, Restored, accept, inspect_clip, restore_clip
from saga_sr.app.example import write_example
from saga_sr.app.limits import check_config
from saga_sr.app.uploads import ABANDONED_S, Uploads
from saga_sr.app.words import PageError
from saga_sr.config import ModelConfig
from saga_sr.model import SAGASRModel
from saga_sr.support.errors import UserError
from saga_sr.upsample.options import UpsampleOptions

T = TypeVar("T")

_TICK_S = 0.2
_SWEEP_S = 60.0
_BYTES_PER_SECOND = 2 * 4 * 96_000  # of the largest files that people have: float, stereo, 96 kHz
WAITING = -1.0  # reported as the fraction done, while somebody else's restoration runs


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
                thread.join(_TICK_S)
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


# ---------------------------------------------------------------------------- all pages
class Studio:
    """Models and visits.

    Args:
        models: label -> folder or hub id; the first is the default.
        root: folder for everything temporary.
        device: of the models.
        max_duration_s: longest file that is accepted.

    Raises:
        UserError: a model cannot be loaded, is beyond the page's limits, or the models differ in
            their sample rate.
    """

    def __init__(
        self, models: Mapping[str, str], root: Path, device: torch.device, max_duration_s: float
    ) -> None:
        self.root, self.device, self.max_duration_s = root, device, max_duration_s
        self.uploads = Uploads(root / "uploads", max_upload_bytes(max_duration_s))
        self._models, self._visits = dict(models), dict[str, Visit]()
        self._loaded: tuple[str, SAGASRModel] | None = None
        self._turn, self._door = threading.Lock(), threading.Lock()
        self.configs: dict[str, ModelConfig] = {}
        for label in reversed(self._models):  # the default is what stays in memory
            self.configs[label] = self._model(label).config
        rates = {config.sample_rate for config in self.configs.values()}
        if len(rates) > 1:
            raise UserError(f"--model: the models differ in their sample rate ({rates} Hz)")
        self.sample_rate = rates.pop()
        self._ended = threading.Event()
        threading.Thread(target=self._sweep_often, daemon=True).start()

    @property
    def labels(self) -> list[str]:
        return list(self._models)

    def _model(self, label: str) -> SAGASRModel:
        if self._loaded is None or self._loaded[0] != label:
            self._loaded = None  # two of them may not fit
            model = SAGASRModel.from_pretrained(self._models[label])
            check_config(model.config, self._models[label])
            self._loaded = (label, model.to(self.device))
        return self._loaded[1]

    # --- visits ---------------------------------------------------------------------------------

    def visit(self, key: str) -> Visit:
        """The visit called ``key``, a new one at its first call."""
        with self._door:
            visit = self._visits.setdefault(key, Visit(self.root))
            visit.seen = time.monotonic()
            return visit

    def is_open(self, key: str) -> bool:
        """Whether there is a visit called ``key``; a page that asks stays open."""
        with self._door:
            if (visit := self._visits.get(key)) is not None:
                visit.seen = time.monotonic()
            return visit is not None

    def leave(self, key: str) -> None:
        with self._door:
            visit = self._visits.pop(key, None)
        if visit is not None:
            visit.close()

    def sweep(self, now: float) -> None:
        """Close the visits that were not heard of for an hour: most never had a page."""
        self.uploads.sweep(now)
        with self._door:
            old = [key for key, visit in self._visits.items() if now - visit.seen > ABANDONED_S]
            visits = [self._visits.pop(key) for key in old]
        for visit in visits:
            visit.close()

    def _sweep_often(self) -> None:
        while not self._ended.wait(_SWEEP_S):
            self.sweep(time.monotonic())

    def close(self) -> None:
        self._ended.set()
        for key in list(self._visits):
            self.leave(key)

    # --- work -----------------------------------------------------------------------------------

    def load(self, visit: Visit, token: str) -> Steps[Clip]:
        """Take an upload over, measure it and draw it.

        Args:
            visit: gets the clip, in place of the one that it had.
            token: of the upload as the page says, hence not trusted.

        Raises:
            UserError: it is no upload, or cannot be used (now, or while it is read).
            StoppedError: the page was closed.
        """
        return self._inspect(visit, lambda folder: self.uploads.take(token, folder))

    def load_example(self, visit: Visit) -> Steps[Clip]:
        """The same for a recording that the page brings along."""
        return self._inspect(visit, write_example)

    def _inspect(self, visit: Visit, fetch: Callable[[Path], Path]) -> Steps[Clip]:
        folder = visit.new_folder()
        try:
            source = accept(fetch(folder), self.max_duration_s)
        except BaseException:
            visit.discard(folder)
            raise

        def work(report: Report) -> Clip:
            clip = inspect_clip(source, self.sample_rate, folder, report)
            visit.forget("restored")
            visit.keep("clip", folder)
            visit.clip = clip
            return clip

        return visit.run(folder, work)

    def restore(self, visit: Visit, label: str, options: UpsampleOptions) -> Steps[Restored]:
        """Restore the clip of ``visit`` by the model called ``label``.

        Raises:
            UserError: nothing is loaded, or an option does not suit the model (while it works).
            StoppedError: the page was closed.
        """
        if visit.clip is None:
            raise PageError("drop_first")
        clip, folder = visit.clip, visit.new_folder()

        def work(report: Report) -> Restored:
            while not self._turn.acquire(timeout=_TICK_S):
                report(WAITING)
            try:
                result = restore_clip(self._model(label), clip, options, folder, report)
            finally:
                self._turn.release()
            visit.keep("restored", folder)
            return result

        return visit.run(folder, work)


def max_upload_bytes(max_duration_s: float) -> int:
    """More than any file of that duration that the page accepts is likely to have."""
    return int(max_duration_s * _BYTES_PER_SECOND) + (1 << 20)

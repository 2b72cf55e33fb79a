"""Who is on the page, what they have loaded, and whose turn it is.

A `Visit` is one open page: its files lie in a folder of its own that nobody else can guess, what a
newer file replaces is removed, and all of it goes when the page is closed. The `Studio` holds the
models, one of them in memory, and lets one restoration run at a time. `steps_of` runs long work
beside the page's server, so that a bar can move and the work can be stopped.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch

from saga_sr.app.audio import Clip, Report, Restored, accept, inspect_clip, restore_clip
from saga_sr.config import ModelConfig
from saga_sr.model import SAGASRModel
from saga_sr.support.errors import UserError
from saga_sr.upsample.options import UpsampleOptions

T = TypeVar("T")
_TICK_S = 0.2
_ABANDONED_S = 3600.0
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
    """One open page: its folder and its files."""

    def __init__(self, root: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="visit-", dir=root))
        self.clip: Clip | None = None
        self.stop = threading.Event()
        self._closed = False
        self._folders: dict[str, Path] = {}  # of the clip and of its newest result

    def begin(self) -> threading.Event:
        """Stop what runs; returns the switch that stops what is about to run."""
        self.stop.set()
        self.stop = threading.Event()
        return self.stop

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def keep(self, kind: str, folder: Path) -> None:
        """``folder`` replaces what was kept as ``kind``."""
        self.forget(kind)
        self._folders[kind] = folder

    def forget(self, kind: str) -> None:
        if kind in self._folders:
            shutil.rmtree(self._folders.pop(kind), ignore_errors=True)

    def close(self) -> None:
        """Stop what runs and remove everything."""
        self._closed = True
        self.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def removing(self, folder: Path, work: Callable[[Report], T]) -> Callable[[Report], T]:
        """``work`` that leaves nothing behind where it fails, is stopped or outlives the visit."""

        def guarded(report: Report) -> T:
            try:
                return work(report)
            except BaseException as error:
                shutil.rmtree(folder, ignore_errors=True)
                if self._closed:  # its folder went while it was writing, most likely
                    raise StoppedError from error
                raise
            finally:
                if self._closed:  # what was written after `close`
                    shutil.rmtree(self.folder, ignore_errors=True)

        return guarded


# ---------------------------------------------------------------------------- all pages
class Studio:
    """Models and visits.

    Args:
        models: label -> folder or hub id; the first is the default.
        root: folder for everything temporary; uploads arrive in ``root / "uploads"``.
        device: of the models.
        max_duration_s: longest file that is accepted.

    Raises:
        UserError: a model cannot be loaded, or the models differ in their sample rate.
    """

    def __init__(
        self, models: Mapping[str, str], root: Path, device: torch.device, max_duration_s: float
    ) -> None:
        self.root, self.device, self.max_duration_s = root, device, max_duration_s
        self.uploads = root / "uploads"
        self.uploads.mkdir()
        self._models, self._visits = dict(models), dict[str, Visit]()
        self._loaded: tuple[str, SAGASRModel] | None = None
        self._turn = threading.Lock()
        self.configs: dict[str, ModelConfig] = {}
        for label in reversed(self._models):  # the default is what stays in memory
            self.configs[label] = self._model(label).config
        rates = {config.sample_rate for config in self.configs.values()}
        if len(rates) > 1:
            raise UserError(f"--model: the models differ in their sample rate ({rates} Hz)")
        self.sample_rate = rates.pop()

    @property
    def labels(self) -> list[str]:
        return list(self._models)

    def _model(self, label: str) -> SAGASRModel:
        if self._loaded is None or self._loaded[0] != label:
            self._loaded = None  # two of them may not fit
            model = SAGASRModel.from_pretrained(self._models[label]).to(self.device)
            self._loaded = (label, model)
        return self._loaded[1]

    # --- visits ---------------------------------------------------------------------------------

    def visit(self, key: str) -> Visit:
        """The visit called ``key``, a new one at its first call."""
        if key not in self._visits:
            self._visits[key] = Visit(self.root)
        return self._visits[key]

    def leave(self, key: str) -> None:
        visit = self._visits.pop(key, None)
        if visit is not None:
            visit.close()

    def close(self) -> None:
        for key in list(self._visits):
            self.leave(key)

    # --- work -----------------------------------------------------------------------------------

    def load(self, visit: Visit, upload: str) -> Steps[Clip]:
        """Take an uploaded file over, measure it and draw it.

        Args:
            visit: gets the clip, in place of the one that it had.
            upload: path of the file as the page says, hence not trusted.

        Raises:
            UserError: it is no upload, or cannot be used (now, or while it is read).
        """
        folder = visit.new_folder()
        try:
            source = accept(self._take(upload, folder), self.max_duration_s)
        except UserError:
            shutil.rmtree(folder)
            raise

        def work(report: Report) -> Clip:
            clip = inspect_clip(source, self.sample_rate, folder, report)
            visit.forget("restored")
            visit.keep("clip", folder)
            visit.clip = clip
            return clip

        return Steps(visit.removing(folder, work), visit.begin())

    def _take(self, upload: str, folder: Path) -> Path:
        """Move an upload into ``folder``; uploads that nobody took for an hour are removed."""
        path = Path(upload).resolve()
        if not (path.is_relative_to(self.uploads.resolve()) and path.is_file()):
            raise UserError("The upload did not arrive; please try again.")
        target = Path(shutil.move(path, folder / path.name))
        for old in self.uploads.iterdir():
            if old == path.parent or time.time() - old.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(old, ignore_errors=True)
        return target

    def restore(self, visit: Visit, label: str, options: UpsampleOptions) -> Steps[Restored]:
        """Restore the clip of ``visit`` by the model called ``label``.

        Raises:
            UserError: nothing is loaded, or an option does not suit the model (while it works).
        """
        if visit.clip is None:
            raise UserError("Drop a file first.")
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

        return Steps(visit.removing(folder, work), visit.begin())

"""The models behind the page, and whose turn it is.

The `Studio` holds the models, one of them in memory, and lets one restoration run at a time. It
knows all visits, and closes those that were not heard of for an hour.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from saga_sr.app.audio import (
    WAITING,
    Clip,
    Report,
    Restored,
    accept,
    inspect_clip,
    write_restored,
)
from saga_sr.app.example import write_example
from saga_sr.app.facts import can_guide, can_guide_by_text
from saga_sr.app.limits import MAX_GUIDANCE, MAX_SEED, MAX_STEPS, check_config
from saga_sr.app.uploads import ABANDONED_S, Uploads, max_upload_bytes
from saga_sr.app.visits import TICK_S, Steps, Visit
from saga_sr.app.words import PageError, message
from saga_sr.config import ModelConfig
from saga_sr.model import SAGASRModel
from saga_sr.support.errors import UserError
from saga_sr.upsample.options import UpsampleOptions, passes_through, restored

_SWEEP_S = 60.0


def restore_clip(
    model: SAGASRModel, clip: Clip, options: UpsampleOptions, folder: Path, report: Report
) -> Restored:
    """Bring ``clip`` to full bandwidth; ``folder`` gets the files.

    Raises:
        UserError: an option does not suit the model, or the disk is full.
    """
    return write_restored(
        lambda progress: restored(model, clip.source, options, clip.bandwidth, progress),
        clip,
        passes_through(options, clip.bandwidth),
        folder,
        report,
    )


def options_from(
    config: ModelConfig,
    rolloff_hz: float,
    prompt: str,
    num_steps: float,
    guidance_acoustic: float,
    guidance_text: float,
    seed: float | None,
) -> UpsampleOptions:
    """The controls as options; those that ``config``'s model does not have are left out.

    Raises:
        PageError: one of them is beyond what the page does (sliders are not to be trusted).
    """
    if seed is None or not 0 <= seed <= MAX_SEED or seed != int(seed):
        given = "-" if seed is None else f"{seed:g}"
        raise PageError("bad_seed", most=MAX_SEED, value=given)
    for control, value, least, most in (
        ("steps", num_steps, 1, MAX_STEPS),
        ("guidance_acoustic", guidance_acoustic, 0, MAX_GUIDANCE),
        ("guidance_text", guidance_text, 0, MAX_GUIDANCE),
        ("rolloff", rolloff_hz, 0 if config.guesses_rolloff else 1, config.sample_rate / 2),
    ):
        if not least <= value <= most:
            raise PageError(
                "out_of_range",
                control=message(control),
                least=f"{least:g}",
                most=f"{most:g}",
                value=f"{value:g}",
            )
    stage = config.stage
    return UpsampleOptions(
        target_rolloff_hz=rolloff_hz if stage.rolloff else None,
        prompt=prompt if stage.text else "",
        num_steps=int(num_steps),
        guidance_acoustic=guidance_acoustic if can_guide(config) else None,
        guidance_text=guidance_text if can_guide_by_text(config) else None,
        seed=int(seed),
    )


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

    def options(self, label: str, **controls: Any) -> UpsampleOptions:
        """The page's controls (see `options_from`) for the model called ``label``."""
        return options_from(self.configs[label], **controls)

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
            while not self._turn.acquire(timeout=TICK_S):
                report(WAITING)
            try:
                result = restore_clip(self._model(label), clip, options, folder, report)
            finally:
                self._turn.release()
            visit.keep("restored", folder)
            return result

        return visit.run(folder, work)

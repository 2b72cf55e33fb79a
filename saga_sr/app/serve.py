"""The page, served until it is stopped."""

import argparse
import importlib.util
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from saga_sr.app.facts import model_labels
from saga_sr.app.scratch import scratch_folder
from saga_sr.app.studio import Studio
from saga_sr.support.device import pick_device
from saga_sr.support.errors import UserError

_INSTALL = "the page needs gradio: pip install -r requirements-app.txt"


@contextmanager
def serving(
    models: Sequence[str],
    host: str = "127.0.0.1",
    port: int | None = None,
    max_duration_s: float = 900.0,
    device: str = "auto",
) -> Iterator[str]:
    """Serve the page while the block runs; gives its address.

    Args:
        models: exported folders or hub ids.
        host: address to listen on.
        port: None takes a free one.
        max_duration_s: longest file that is accepted.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        UserError: gradio is missing, a model cannot be loaded, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError(_INSTALL)
    labels, chosen = model_labels(models), pick_device(device)
    with scratch_folder() as folder:
        studio = Studio(labels, folder, chosen, max_duration_s)
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from saga_sr.app.ui import Page

        page = Page(studio)
        try:
            yield page.launch(host, port)
        finally:
            page.close()
            studio.close()


def main(flags: argparse.Namespace) -> int:
    """Serve until Ctrl+C or SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with serving(
        flags.model, flags.host, flags.port, flags.max_duration_s, flags.device
    ) as address:
        print(f"SAGA-SR listens on {address} (Ctrl+C ends it)", flush=True)
        ended.wait()
    return 0

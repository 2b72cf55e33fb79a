# ruff: noqa: E402  (flags are checked before torch is imported)
"""A page to hear and see what a model does to a recording.

    python -m saga_sr.app
    python -m saga_sr.app --model runs/mine/export models/saga-sr-demo --port 8000

Drop a file or record one; look at its spectrogram and at where its band ends; restore it; switch
between the two while they play; keep the result as WAV.

This module is the command line and the life of the server; the page itself is `saga_sr.page`. All
temporary files lie below one folder, which goes when the server ends. Gradio is an extra and is
imported only to serve.
"""

import argparse
import sys
from pathlib import Path

from saga_sr.errors import UserError, run_cli

DEMO_MODEL = Path(__file__).parents[1] / "models" / "saga-sr-demo"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.app",
        description="A web page on this machine to restore recordings, see them and hear them.",
    )
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        default=[str(DEMO_MODEL)],
        metavar="FOLDER",
        help="exported models or hub ids to choose from (the demo model of this repository)",
    )
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in")
    add("--port", type=_port, default=7860)
    add(
        "--max_duration_s",
        type=_positive_float,
        default=900.0,
        help="longest file that is accepted, in seconds (900)",
    )
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text}: must be from 1 to 65535")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return build_parser().parse_args(argv)


if __name__ == "__main__":
    FLAGS = parse_args()

import importlib.util
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from saga_sr.page.facts import model_labels
from saga_sr.page.visits import Studio
from saga_sr.upsample import pick_device

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
    with tempfile.TemporaryDirectory(prefix="saga-sr-app-", ignore_cleanup_errors=True) as folder:
        studio = Studio(labels, Path(folder), chosen, max_duration_s)
        os.environ["GRADIO_TEMP_DIR"] = str(studio.uploads)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from saga_sr.page.ui import Page

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


if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(FLAGS)))

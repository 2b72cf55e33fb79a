"""A page to hear and see what a model does to a recording.

    python -m saga_sr.app
    python -m saga_sr.app --model runs/mine/export models/saga-sr-demo --port 8000

Drop a file or record one; look at its spectrogram and at where its band ends; restore it; switch
between the two while they play; keep the result as WAV.

This module is the command line and the life of the server; the page itself is `saga_sr.app.ui`. All
temporary files lie below one folder, which goes when the server ends, or at the next start where it
was killed. Gradio is an extra and is imported only to serve.
"""

import argparse

from saga_sr.support.arguments import positive_float
from saga_sr.support.choices import DEVICES
from saga_sr.support.errors import run_cli
from saga_sr.support.shipped import MODEL, shipped_file


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.app",
        description="A web page on this machine to restore recordings, see them and hear them.",
    )
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        default=[str(shipped_file(MODEL) or MODEL)],
        metavar="FOLDER",
        help="exported models or hub ids to choose from (the demo model of this repository)",
    )
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in")
    add("--port", type=_port, default=7860)
    add(
        "--max_duration_s",
        type=positive_float,
        default=900.0,
        help="longest file that is accepted, in seconds (900)",
    )
    add("--device", choices=DEVICES, default="auto")
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text}: must be from 1 to 65535")
    return value


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return build_parser().parse_args(argv)


def run() -> int:
    """Serve the page; returns the exit code."""
    flags = parse_args()
    from saga_sr.app.serve import main

    return main(flags)


if __name__ == "__main__":
    raise SystemExit(run_cli(run))

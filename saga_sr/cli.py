"""``saga-sr upsample old.m4a`` from any folder: the programs of this package under one name.

Each is the same program as ``python -m saga_sr.NAME``; ``train`` is train_saga_sr.py.
"""

import runpy
import sys

from saga_sr import __version__
from saga_sr.support.errors import EXIT_OK, EXIT_USER_ERROR

COMMANDS = {  # name -> (module, what it does)
    "upsample": ("saga_sr.upsample", "bring audio files to full bandwidth"),
    "train": ("train_saga_sr", "train a model"),
    "evaluate": ("saga_sr.evaluate", "measure models on held-out audio"),
    "compare": ("saga_sr.compare", "put training runs side by side"),
    "pre-encode": ("saga_sr.pre_encode", "encode a corpus once, for training from latents"),
    "captions": ("saga_sr.captions", "describe a corpus in words, with Qwen2-Audio"),
    "app": ("saga_sr.app", "a page in the browser to restore recordings and hear them"),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        ["usage: saga-sr COMMAND ...", "", *lines, "", "saga-sr COMMAND --help tells its flags."]
    )


def main() -> int:
    """Run the command that the first argument names, with the others; returns the exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return EXIT_OK
    if name == "--version":
        print(f"saga-sr {__version__}")
        return EXIT_OK
    if name not in COMMANDS:
        print(f"error: {name}: no such command; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return EXIT_USER_ERROR
    module, _ = COMMANDS[name]
    sys.argv = [sys.argv[0], *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return EXIT_OK

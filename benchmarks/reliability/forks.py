"""A command of the project in a fork of a process that has imported it and computed nothing."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from saga_sr.pre_encode.__main__ import parse_options as pre_encode_options
from saga_sr.pre_encode.encode import main as pre_encode_main
from saga_sr.support.errors import run_cli
from saga_sr.training.flags import parse_options as train_options
from train_saga_sr import main as train_main

Program = Callable[[list[str]], int | None]


def train(argv: list[str]) -> int:
    """``train_saga_sr.py`` with these flags."""
    return train_main(train_options(argv))


def pre_encode(argv: list[str]) -> None:
    """``python -m saga_sr.pre_encode`` with these flags."""
    pre_encode_main(pre_encode_options(argv))


def write_to(log: Path) -> None:
    """From here on this process writes to the end of ``log``, as do its children."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def run_and_exit(program: Program, argv: list[str]) -> NoReturn:
    """Run a program and leave, with its exit code or 70 for a traceback; never returns."""
    code = 70
    try:
        code = run_cli(lambda: program(argv))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)

"""A command of the project in a fork of a process that has imported it and computed nothing."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from saga_sr.errors import run_cli


def write_to(log: Path) -> None:
    """From here on this process writes to the end of ``log``, as do its children."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def run_and_exit(program: Any, argv: list[str]) -> NoReturn:
    """Run a module's main and leave, with its exit code or 70 for a traceback; never returns."""
    code = 70
    try:
        code = run_cli(lambda: program.main(program.parse_options(argv)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)

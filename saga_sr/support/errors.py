"""How a user's mistake ends: one clear message on stderr, exit code 2, no traceback.

And how Ctrl-C ends a command, at any moment: one word, and 130 for the shell.
"""

import errno
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

EXIT_OK = 0
EXIT_PARTIAL = 1  # some files of a batch failed, the others are done
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """A mistake that the user can mend.

    The message names the file, flag or key, what was found there and what is allowed.
    """

    @classmethod
    def listing(cls, heading: str, problems: Iterable[str]) -> "UserError":
        """One error that reports all ``problems`` at once, a line each."""
        return cls("\n".join([heading, *(f"  - {problem}" for problem in problems)]))


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run_cli(main: Callable[[], int | None]) -> int:
    """Run ``main``; print a `UserError`, or that the disk is full, as ``error: ...`` and return the
    exit code. No name is unprintable, and a reader that goes (``| head``) ends nothing."""
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)
    try:
        with _interrupts_end_quietly():
            return main() or EXIT_OK
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except UserError as error:
        print(f"error: {_own_words(error)}", file=sys.stderr)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f"error: {disk_full(error)}, then start the same command again", file=sys.stderr)
    return EXIT_USER_ERROR


@contextmanager
def _interrupts_end_quietly() -> Iterator[None]:
    """Ctrl-C is answered by `_interrupt`, unless something else than Python answers it already."""
    before = signal.getsignal(signal.SIGINT)
    if (
        before not in (signal.default_int_handler, signal.SIG_DFL)
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt; but while a library is imported the end at once: half a library makes
    errors of its own from an interrupt."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        if frame.f_code is run_cli.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"interrupted\n")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


class _Pipe(io.FileIO):
    """A pipe whose reader may go: what is written afterwards goes nowhere."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _patient(stream: TextIO) -> TextIO:
    """The same stream, which writes every text (escaped where its encoding lacks a character)."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):
        is_pipe = False
    if is_pipe and not isinstance(getattr(stream.buffer, "raw", None), _Pipe):
        stream.flush()
        raw = io.BufferedWriter(_Pipe(descriptor, "w", closefd=False))
        stream = io.TextIOWrapper(raw, stream.encoding, line_buffering=stream.line_buffering)
    stream.reconfigure(errors="backslashreplace")
    return stream


def disk_full(error: OSError) -> str:
    """What to do about an error of `DISK_FULL`."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}: make room on the disk"


def _own_words(error: UserError) -> str:
    """The message; one that a DataLoader's worker sent comes wrapped in the worker's traceback."""
    return str(error).rsplit(f"{UserError.__module__}.{UserError.__qualname__}: ", 1)[-1].rstrip()

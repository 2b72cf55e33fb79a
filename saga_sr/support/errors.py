"""How a user's mistake ends: one clear message on stderr, exit code 2, no traceback."""

import errno
import sys
from collections.abc import Callable, Iterable

EXIT_OK = 0
EXIT_PARTIAL = 1  # some files of a batch failed, the others are done
EXIT_USER_ERROR = 2
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
    exit code."""
    try:
        return main() or EXIT_OK
    except UserError as error:
        print(f"error: {_own_words(error)}", file=sys.stderr)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f"error: {disk_full(error)}, then start the same command again", file=sys.stderr)
    return EXIT_USER_ERROR


def disk_full(error: OSError) -> str:
    """What to do about an error of `DISK_FULL`."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}: make room on the disk"


def _own_words(error: UserError) -> str:
    """The message; one that a DataLoader's worker sent comes wrapped in the worker's traceback."""
    return str(error).rsplit(f"{UserError.__module__}.{UserError.__qualname__}: ", 1)[-1].rstrip()

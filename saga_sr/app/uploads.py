"""Files that have arrived and that no visit has taken yet.

Each lies in a folder of its own, named by a token that only its sender is told: two people who send
the same file, or files of one name, have nothing in common here. (Gradio's own upload names folders
by the content's hash, so they would.)
"""

import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from saga_sr.app.words import PageError

_MAX_NAME_BYTES = 180  # file systems take 255, and names get suffixes here
ABANDONED_S = 3600.0
_BYTES_PER_SECOND = 2 * 4 * 96_000  # of the largest files that people have: float, stereo, 96 kHz


class Uploads:
    """The uploads below ``root``, of at most ``max_bytes`` each."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root, max_bytes
        root.mkdir()
        self._lock = threading.Lock()
        self._arrived: dict[str, float] = {}  # token -> when, by the monotonic clock

    async def receive(self, name: str, body: AsyncIterator[bytes]) -> str:
        """Keep a file that is being sent; returns its token.

        Raises:
            PageError: it is larger than allowed, or the disk does not take it.
        """
        token, name = secrets.token_urlsafe(16), safe_name(name)
        folder, size, whole = self.root / token, 0, False
        try:
            folder.mkdir()
            with (folder / name).open("wb") as file:
                async for block in body:
                    size += len(block)
                    if size > self.max_bytes:
                        raise PageError("too_large", name=name, megabytes=self.max_bytes // 10**6)
                    file.write(block)
            whole = True
        except OSError as error:
            raise PageError("not_kept", name=name, reason=error.strerror) from error
        finally:
            if not whole:  # the sender may have gone as well
                shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            self._arrived[token] = time.monotonic()
        return token

    def take(self, token: str, folder: Path) -> Path:
        """Move the file that ``token`` stands for into ``folder``; a token is good for once.

        Raises:
            PageError: there is no such upload.
        """
        with self._lock:
            known = self._arrived.pop(token, None) is not None
        if not known:
            raise PageError("not_arrived")
        (file,) = (self.root / token).iterdir()
        target = file.rename(folder / file.name)
        (self.root / token).rmdir()
        return target

    def sweep(self, now: float) -> None:
        """Remove what nobody has taken for an hour."""
        with self._lock:
            old = [token for token, at in self._arrived.items() if now - at > ABANDONED_S]
            for token in old:
                del self._arrived[token]
        for token in old:
            shutil.rmtree(self.root / token, ignore_errors=True)


def safe_name(name: str) -> str:
    """The last part of a sender's path as a file name: printable, no longer than disks allow."""
    last = name.replace("\\", "/").rpartition("/")[2].strip()
    path = Path("".join(c for c in last if c.isprintable()).lstrip(".") or "audio")
    suffix = path.suffix if len(path.suffix) < 8 else ""
    stem = path.name.removesuffix(suffix).encode("utf-8", "ignore")[:_MAX_NAME_BYTES]
    return stem.decode("utf-8", "ignore") + suffix


def max_upload_bytes(max_duration_s: float) -> int:
    """More than any file of that duration that the page accepts is likely to have."""
    return int(max_duration_s * _BYTES_PER_SECOND) + (1 << 20)

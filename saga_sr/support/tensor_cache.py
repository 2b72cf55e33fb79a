"""Small tensors kept on disk under names: each file appears whole, and may be lost at any time."""

import hashlib
import logging
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from saga_sr.support.errors import UserError
from saga_sr.support.files import cache_path

logger = logging.getLogger(__name__)


class TensorCache:
    """One tensor for each text, in ``folder``. Safe to share between runs, ranks and machines: two
    writers write the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._prefix = str(folder)

    def path(self, text: str) -> str:
        """A string: building a Path would take half the time of reading it."""
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
        return f"{self._prefix}/{digest[:2]}/{digest}.safetensors"

    def read(self, text: str) -> Tensor | None:
        """None where there is none, or none that can be read, which is said."""
        path = self.path(text)
        try:
            with open(path, "rb") as file:  # twice as fast for a small file as mapping it
                return load(file.read())["embedding"]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, OSError) as error:
            logger.warning("%s: unreadable, computed again (%s)", path, error)
            return None

    def write(self, text: str, tensor: Tensor) -> None:
        """Keep a tensor.

        Raises:
            UserError: it cannot be written.
        """
        path = self.path(text)
        try:
            with cache_path(path) as temporary:
                save_file({"embedding": tensor}, temporary)
        except SafetensorError as error:
            raise UserError(f"{path}: the text cache cannot be written ({error})") from error

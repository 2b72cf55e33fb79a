"""Importing stable-audio-tools without what its import does on the side."""

import contextlib
import io
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import parts of stable-audio-tools inside this block.

    It prints that flash-attn is not installed, and it (and its k-diffusion) makes every
    ``torch.compile`` of the process fail silently: a failed compilation must be seen.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    torch._dynamo.config.suppress_errors = False

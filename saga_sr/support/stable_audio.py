"""Importing stable-audio-tools without what its import does on the side."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import parts of stable-audio-tools, and build its autoencoder, inside this block.

    It prints that flash-attn is not installed, warns of ``pkg_resources`` and ``weight_norm``, and
    it (and its k-diffusion) makes every ``torch.compile`` of the process fail silently: a failed
    compilation must be seen.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.config.suppress_errors = False

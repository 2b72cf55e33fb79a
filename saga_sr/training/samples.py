"""What a person looks at and listens to after a validation: WAVs and one picture per clip."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile as sf
from matplotlib.image import imsave
from torch import Tensor

from saga_sr.audio.spectrogram import comparison_image
from saga_sr.support.files import atomic_path


def write_clip(
    folder: Path, name: str, panels: Mapping[str, Tensor], sample_rate: int, cutoff_hz: float
) -> np.ndarray:
    """Write ``<name>-<panel>.wav`` (float) for each panel and ``<name>.png`` with all spectrograms.

    Args:
        folder: made if needed.
        name: of the clip.
        panels: label -> audio [C, T], in the order of the picture.
        sample_rate: in Hz.
        cutoff_hz: marked in the picture.

    Returns:
        The picture, [height, width, 3] uint8.
    """
    for label, audio in panels.items():
        with atomic_path(folder / f"{name}-{label}.wav") as temporary:
            sf.write(temporary, audio.T.numpy(), sample_rate, subtype="FLOAT")
    picture = comparison_image(panels, sample_rate, cutoff_hz)
    with atomic_path(folder / f"{name}.png") as temporary:
        imsave(temporary, picture)
    return picture

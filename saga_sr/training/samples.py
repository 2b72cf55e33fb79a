"""What a person looks at and listens to after a validation: WAVs and one picture per clip.

They go into the run's folder, from which `saga_sr.compare` makes its listening page, and to where
people look first: TensorBoard and W&B.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from lightning.fabric.loggers import Logger
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.image import imsave
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from saga_sr.audio.spectrogram import comparison_image
from saga_sr.support.files import atomic_path, write_json_atomic


def write_clip(
    folder: Path,
    name: str,
    panels: Mapping[str, Tensor],
    sample_rate: int,
    metadata: Mapping[str, Any],
) -> np.ndarray:
    """Write ``<name>-<panel>.wav`` (float) for each panel, ``<name>.png`` with all spectrograms,
    and ``<name>.json`` with what a listener should know.

    Args:
        folder: made if needed.
        name: of the clip.
        panels: label -> audio [C, T], in the order of the picture.
        sample_rate: in Hz.
        metadata: of the clip, as the dataset gives it.

    Returns:
        The picture, [height, width, 3] uint8.
    """
    for label, audio in panels.items():
        with atomic_path(folder / f"{name}-{label}.wav") as temporary:
            sf.write(temporary, audio.T.numpy(), sample_rate, subtype="FLOAT")
    write_json_atomic(folder / f"{name}.json", known(metadata))
    picture = comparison_image(panels, sample_rate, float(metadata["lr_cutoff_hz"]))
    with atomic_path(folder / f"{name}.png") as temporary:
        imsave(temporary, picture)
    return picture


def known(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """File and folder name, text and cutoff of a clip, as JSON values."""
    path = Path(metadata["audio_path"])
    return {
        "name": path.stem,
        "category": path.parent.name,
        "text": metadata.get("prompt") or metadata.get("transcript") or "",
        "cutoff_hz": float(metadata["lr_cutoff_hz"]),
    }


def log_clip(
    loggers: Sequence[Logger],
    tag: str,
    picture: np.ndarray,
    panels: Mapping[str, Tensor],
    sample_rate: int,
    step: int,
) -> None:
    """Show a clip in TensorBoard and W&B: its picture, and each panel [C, T] to listen to.

    All panels are lowered by one gain where one is over full scale, so that none clips.
    """
    loudest = max(float(audio.abs().max()) for audio in panels.values())
    scale = min(1.0, (1 - 2.0**-15) / max(loudest, 1e-9))
    heard = {label: (scale * audio).T.numpy() for label, audio in panels.items()}  # [T, C]
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment
            writer.add_image(tag, picture, step, dataformats="HWC")
            for label, samples in heard.items():
                summary = _audio_summary(f"{tag}/{label}", samples, sample_rate)
                writer._get_file_writer().add_summary(summary, step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [picture], step)
            audio = list(heard.values())
            rates = [sample_rate] * len(audio)
            logger.log_audio(f"{tag}/audio", audio, step, sample_rate=rates, caption=list(heard))


def _audio_summary(tag: str, samples: np.ndarray, sample_rate: int) -> Summary:
    """Samples [T, C] for TensorBoard; its own ``add_audio`` takes one channel only."""
    with io.BytesIO() as file:
        sf.write(file, samples, sample_rate, subtype="PCM_16", format="WAV")
        audio = Summary.Audio(
            sample_rate=sample_rate,
            num_channels=samples.shape[1],
            length_frames=samples.shape[0],
            encoded_audio_string=file.getvalue(),
            content_type="audio/wav",
        )
    return Summary(value=[Summary.Value(tag=tag, audio=audio)])

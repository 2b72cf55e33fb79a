"""The fixed clips of a validation, where people look first: audio in TensorBoard and W&B."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saga_sr.training import samples

RATE = 44100
METADATA = {
    "audio_path": "/somewhere/music/a tune.flac", "prompt": "", "transcript": "一二三",
    "lr_cutoff_hz": 4000.0,
}  # fmt: skip


def panels() -> dict[str, torch.Tensor]:
    """Stereo in antiphase (a mix-down would be silent), one over full scale."""
    tone = torch.sin(torch.arange(4096) / 10)
    audio = torch.stack([tone, -tone])
    return {"LR": 0.25 * audio, "prediction": 1.25 * audio, "HR": 0.5 * audio}


def log(loggers: list[Any], folder: Path) -> None:
    picture = samples.write_clip(folder, "val-00", panels(), RATE, METADATA)
    samples.log_clip(loggers, "val/clip-00", picture, panels(), RATE, step=7)


def test_what_a_listener_should_know_stands_beside_the_audio_without_a_machine_path(
    tmp_path: Path,
) -> None:
    samples.write_clip(tmp_path, "val-00", panels(), RATE, METADATA)
    assert json.loads((tmp_path / "val-00.json").read_text(encoding="utf-8")) == {
        "name": "a tune", "category": "music", "text": "一二三", "cutoff_hz": 4000.0,
    }  # fmt: skip


def test_tensorboard_gets_all_versions_in_stereo_lowered_together(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    log([logger], tmp_path)
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path), {"audio": 0}).Reload()
    tags = ["val/clip-00/HR", "val/clip-00/LR", "val/clip-00/prediction"]
    assert sorted(events.Tags()["audio"]) == tags
    peaks = {}
    for tag in tags:
        (event,) = events.Audio(tag)
        assert (event.step, event.sample_rate, event.length_frames) == (7, RATE, 4096)
        audio, rate = soundfile.read(io.BytesIO(event.encoded_audio_string))
        assert rate == RATE
        np.testing.assert_allclose(audio[:, 0], -audio[:, 1], atol=1e-4)
        peaks[tag.rsplit("/", 1)[1]] = np.abs(audio).max()
    assert peaks["prediction"] <= 1
    assert peaks["HR"] / peaks["LR"] == pytest.approx(2, abs=0.01)
    assert peaks["prediction"] / peaks["HR"] == pytest.approx(2.5, abs=0.01)


def test_wandb_gets_all_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is an extra: pip install wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=str(tmp_path), project="saga-sr-test")
    log([logger], tmp_path)
    logger.experiment.finish()
    heard = [soundfile.info(path) for path in tmp_path.rglob("media/audio/**/*.wav")]
    assert [(one.channels, one.frames, one.samplerate) for one in heard] == [(2, 4096, RATE)] * 3
    assert len(list(tmp_path.rglob("media/images/**/*.png"))) == 1

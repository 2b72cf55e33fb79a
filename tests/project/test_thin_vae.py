"""A thin autoencoder: its folder is what training takes, and what it decodes nears the audio."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from saga_sr.config import load_model_config
from saga_sr.model import SAGASRModel
from saga_sr.weights import load_pretransform

ROOT = Path(__file__).resolve().parents[2]


def test_a_thin_vae_is_trained_and_loads(tmp_path: Path) -> None:
    audio = 0.2 * np.random.default_rng(0).standard_normal(44100).astype(np.float32)
    (tmp_path / "noise").mkdir()
    sf.write(tmp_path / "noise" / "noise.wav", audio, 44100)
    command = [sys.executable, ROOT / "scripts/thin_vae.py", tmp_path / "noise", "--steps", "3"]
    subprocess.run([*command, "--batch_size", "1", "--output", tmp_path / "thin"], check=True)
    config = load_model_config(tmp_path / "thin" / "config.json")
    model = SAGASRModel(config)
    untrained = model.pretransform.encode(torch.ones(1, 1, config.sample_size))
    report = load_pretransform(model, tmp_path / "thin" / "vae.safetensors")
    assert report.loaded
    clip = torch.from_numpy(audio[None, None, : config.sample_size])
    latent = model.encode(clip)
    assert latent.shape == (1, config.latent_dim, config.sample_size // 128)
    assert 0.5 < latent.std() < 2  # the scale in the config is that of these weights
    assert model.decode(latent).shape == clip.shape
    assert not torch.equal(model.encode(torch.ones(1, 1, config.sample_size)), untrained)

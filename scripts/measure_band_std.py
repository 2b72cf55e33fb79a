"""Measure the MDCT pretransform's ``band_hz`` and ``band_std`` on a corpus.

    python scripts/measure_band_std.py --audio_dir corpus/train

Prints the two JSON lines to put into ``model.pretransform.config``: per band, the standard
deviation of the companded coefficients over audible clips, so that the flow sees roughly unit
variance.
"""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from saga_sr.config import MDCTConfig, load_model_config
from saga_sr.support.errors import UserError, run_cli
from saga_sr.weightfree.mdct import MDCTPretransform

NUM_BANDS = 24
SUFFIXES = {".wav", ".flac", ".ogg"}


def measure(files: list[Path], config: MDCTConfig, sample_rate: int, clip_size: int) -> np.ndarray:
    """Geometric mean over clips of the companded coefficients' root mean square, per bin [hop].

    What is typical has unit variance then. With the arithmetic mean a few loud clips set the scale,
    and nearly all data lies far below the noise: see docs/demo_model.
    """
    mono = MDCTConfig(hop=config.hop, channels=1, power=config.power)
    pretransform = MDCTPretransform(mono, sample_rate)
    total, count = np.zeros(config.hop), 0
    for path in files:
        if sf.info(path).samplerate != sample_rate:  # resampled, it would be empty above its end
            continue
        frames = sf.info(path).frames
        for start in np.linspace(0, max(0, frames - clip_size), 8).astype(int):
            audio, _ = sf.read(path, frames=clip_size, start=start, dtype="float32", always_2d=True)
            audio = audio[: len(audio) // config.hop * config.hop].T[:, None]
            if audio.size == 0 or np.sqrt(np.mean(audio**2)) < 1e-3:
                continue
            latent = pretransform.encode(torch.from_numpy(np.ascontiguousarray(audio)))
            total += np.log(latent.square().mean(dim=(0, 2)).numpy() + 1e-12)
            count += 1
    if not count:
        raise UserError(f"--audio_dir: no audible audio at {sample_rate} Hz")
    return np.exp(total / count / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--audio_dir", type=Path, required=True, nargs="+")
    parser.add_argument("--model_config", type=Path, default=Path("saga_model_config_demo.json"))
    options = parser.parse_args()
    config = load_model_config(options.model_config)
    section = config.model.pretransform.config
    if not isinstance(section, MDCTConfig):
        parser.error(f"{options.model_config}: the pretransform is no MDCT")
    for folder in options.audio_dir:
        if not folder.is_dir():
            raise UserError(f"--audio_dir {folder}: no such folder")
    files = sorted(
        path
        for folder in options.audio_dir
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
    )
    per_bin = measure(files, section, config.sample_rate, config.sample_size)
    nyquist = config.sample_rate / 2
    bin_hz = (np.arange(section.hop) + 0.5) * nyquist / section.hop
    # Bands get wider with frequency, as hearing and spectra do.
    edges = np.unique(np.geomspace(1, section.hop + 1, NUM_BANDS + 1).astype(int) - 1)
    hz = [float(bin_hz[a:b].mean().round(1)) for a, b in pairwise(edges)]
    std = [float(f"{np.sqrt((per_bin[a:b] ** 2).mean()):.4g}") for a, b in pairwise(edges)]
    print(f"{len(files)} files")
    print(f'"band_hz": {json.dumps(hz)},')
    print(f'"band_std": {json.dumps(std)}')


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

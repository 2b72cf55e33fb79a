"""What the prior alone promises: noise at the expected levels, without the DiT.

    python benchmarks/quality/prior.py --model MODEL --audio_dir VAL/music VAL/speech VAL/effects

The first seconds of every file are cut into segments, low-passed (Chebyshev-1, order 8) and given
to the prior without a target roll-off. Printed are, for each folder and cutoff: LSD and band error
of noise at its levels, means over files. The worst file is named: of few files, one decides.
`train_saga_sr.py --train_only prior` trains it.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.index import AudioIndex
from saga_sr.config import MDCTConfig
from saga_sr.lowfreq import low_frequency_replace
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.metrics import high_band_error_db, lsd
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.restore import segment_noise
from saga_sr.rolloff import spectral_rolloff

SILENT = 1e-4


def segments(folder: Path, size: int, rate: int, most: int) -> Iterator[tuple[str, Tensor]]:
    """(file, [N, 1, T]) of every file; what is left of the last segment is silence."""
    index = AudioIndex.scan([folder], progress=False)
    for position in range(len(index)):
        header = index.header(position)
        length = min(int(header.frames / header.sample_rate * rate), most * size)
        audio = torch.from_numpy(index.read(position, 0, length, rate)).mean(dim=0)
        audio = torch.nn.functional.pad(audio, (0, -len(audio) % size))
        yield index.path(position).stem, audio.view(-1, 1, size)


@torch.no_grad()
def measure(model: SAGASRModel, truth: Tensor, cutoff_hz: float, seed: str) -> np.ndarray | None:
    """Mean LSD and band error of a file's segments [N, 1, T]; None: nothing to hear."""
    rate, lowpass = model.config.sample_rate, field_lowpass(cutoff_hz)
    lr = torch.stack([apply_lowpass(one, rate, lowpass) for one in truth])
    low_hz = torch.cat([spectral_rolloff(one[None], rate) for one in lr])
    frame = model.frame(Conditioning(model.encode(lr), rolloff_hz=low_hz[:, None]))
    noise = segment_noise(model.config, [("prior", seed, n) for n in range(len(truth))])
    mdct = model.config.model.pretransform.config
    assert isinstance(mdct, MDCTConfig)
    noise = companded(noise, mdct.power)
    passband_hz = torch.full((len(truth),), lowpass.passband_hz(rate))
    heard = low_frequency_replace(model.decode(frame.leave(noise)), lr, passband_hz, rate)
    rows = []
    for estimate, one in zip(heard, truth, strict=True):
        end_hz = spectrum_end_hz(one, rate) or rate / 2
        if one.abs().max() < SILENT or end_hz < 1.26 * cutoff_hz:
            continue
        pair = (estimate[None], one[None])
        rows.append(
            (
                lsd(*pair, sample_rate=rate, high_hz=end_hz).item(),
                high_band_error_db(*pair, cutoff_hz, rate, end_hz).item(),
            )
        )
    return np.mean(rows, axis=0) if rows else None


def companded(noise: Tensor, power: float) -> Tensor:
    """Normal noise as it looks companded, at the same mean square: decoded, it is normal again."""
    shaped = noise.sign() * noise.abs() ** power
    return shaped / shaped.square().mean().sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--audio_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[4000.0, 8000.0])
    parser.add_argument("--segments", type=int, default=8, help="of each file, at most")
    flags = parser.parse_args()
    model = SAGASRModel.from_pretrained(flags.model)
    if "prior_predictor" not in model.family.parts or model.config.audio_channels != 1:
        raise SystemExit(f"{flags.model}: has no prior, or is not a mono model")
    size, rate = model.config.sample_size, model.config.sample_rate
    print("| | LSD | band error (dB) | worst file |\n|---|---|---|---|")
    for cutoff_hz in flags.cutoffs:
        for folder in flags.audio_dir:
            found = {
                name: row
                for name, truth in segments(folder, size, rate, flags.segments)
                if (row := measure(model, truth, cutoff_hz, name)) is not None
            }
            mean = np.mean(list(found.values()), axis=0)
            worst = max(found, key=lambda name: found[name][1])
            cells = f"{mean[0]:.3f} | {mean[1]:.2f} | {worst} ({found[worst][1]:.1f})"
            print(f"| {folder.name}, {cutoff_hz / 1000:g} kHz | {cells} |", flush=True)


if __name__ == "__main__":
    main()

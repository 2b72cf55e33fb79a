"""Draw what a model makes of excerpts: input, restored, truth, side by side.

    python scripts/draw_examples.py --model models/saga-sr-demo --cutoff_hz 4000 \
        --output docs/examples corpus/val/music/song.ogg@12.5+2 ...

Each excerpt FILE@START+LENGTH (seconds; both may be left out) is low-passed with the field's test
filter, restored, and drawn; band replication is drawn beside it for comparison. This is what made
the pictures of docs/examples.md.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from saga_sr.support.errors import UserError, run_cli

if TYPE_CHECKING:
    from torch import Tensor

    from saga_sr.model import SAGASRModel


def excerpt(word: str) -> tuple[Path, float, float | None]:
    """``FILE@START+LENGTH`` as path, start and length in seconds."""
    match = re.fullmatch(r"(.+?)(?:@([\d.]+))?(?:\+([\d.]+))?", word)
    assert match  # the file name takes everything
    path, start, length = match.groups()
    return Path(path), float(start or 0), float(length) if length else None


def read_excerpt(path: Path, start_s: float, length_s: float | None, rate: int) -> "Tensor":
    """[C, T] at ``rate``, or a sentence that says what is wrong."""
    import soundfile as sf
    import torch

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if (found := sf.info(path).samplerate) != rate:
        raise UserError(f"{path}: {found} Hz; allowed: {rate} Hz")
    frames = -1 if length_s is None else round(length_s * rate)
    samples, _ = sf.read(path, frames, round(start_s * rate), dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy())


def panels(model: "SAGASRModel", truth: "Tensor", cutoff_hz: float) -> "dict[str, Tensor]":
    """Input, band replication, the model's output and the truth, each with its two errors."""
    import torch

    from saga_sr.audio.band_end import spectrum_end_hz
    from saga_sr.evaluate.baselines import spectral_band_replication
    from saga_sr.lowfreq import low_frequency_replace
    from saga_sr.lowpass import apply_lowpass, field_lowpass
    from saga_sr.metrics import high_band_error_db, lsd
    from saga_sr.upsample.options import upsample

    rate, lowpass = model.config.sample_rate, field_lowpass(cutoff_hz)
    lr_audio = apply_lowpass(truth, rate, lowpass)
    copied = spectral_band_replication(lr_audio[None], cutoff_hz, rate)
    end_hz = lowpass.passband_hz(rate)
    rows = {
        f"input, {cutoff_hz / 1000:g} kHz": lr_audio,
        "band replication": low_frequency_replace(copied, lr_audio[None], end_hz, rate)[0],
        "restored": torch.from_numpy(upsample(model, lr_audio.numpy(), rate)),
    }
    drawn, top_hz = {}, min(spectrum_end_hz(truth, rate), rate / 2)
    for name, audio in rows.items():
        error_db = high_band_error_db(audio[None], truth[None], cutoff_hz, rate, top_hz).item()
        distance = lsd(audio[None], truth[None], sample_rate=rate).item()
        drawn[f"{name} (LSD {distance:.2f}, {error_db:.1f} dB)"] = audio
    return drawn | {"truth": truth}


def main() -> None:
    summary, details = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("excerpts", nargs="+", type=excerpt, metavar="FILE@START+LENGTH")
    parser.add_argument("--model", required=True)
    parser.add_argument("--cutoff_hz", type=float, default=4000.0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    from PIL import Image

    from saga_sr.audio.spectrogram import comparison_figure
    from saga_sr.model import SAGASRModel

    model = SAGASRModel.from_pretrained(options.model)
    options.output.mkdir(parents=True, exist_ok=True)
    for path, start_s, length_s in options.excerpts:
        rate = model.config.sample_rate
        shown = panels(model, read_excerpt(path, start_s, length_s, rate), options.cutoff_hz)
        picture = options.output / f"{path.stem}-{options.cutoff_hz / 1000:g}kHz.png"
        comparison_figure(shown, rate, options.cutoff_hz, picture)
        Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)  # a third
        print(picture)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

"""Draw what a model makes of excerpts: input, restored, truth, side by side.

    python scripts/draw_examples.py --model models/saga-sr-demo --cutoff_hz 4000 \
        --output docs/examples corpus/val/music/song.ogg@12.5+2 ...

Each excerpt FILE@START+LENGTH (seconds; both may be left out) is low-passed with the field's test
filter, restored, and drawn; band replication is drawn beside it for comparison. With --write_audio
the WAVs lie beside the pictures. This is what made the pictures of docs/examples.md.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from saga_sr.errors import UserError, run_cli


def excerpt(word: str) -> tuple[Path, float, float | None]:
    """``FILE@START+LENGTH`` as path, start and length in seconds."""
    match = re.fullmatch(r"(.+?)(?:@([\d.]+))?(?:\+([\d.]+))?", word)
    assert match  # the file name takes everything
    path, start, length = match.groups()
    return Path(path), float(start or 0), float(length) if length else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0], epilog=__doc__.split("\n", 1)[1]
    )
    parser.add_argument("excerpts", nargs="+", type=excerpt, metavar="FILE@START+LENGTH")
    parser.add_argument("--model", required=True)
    parser.add_argument("--cutoff_hz", type=float, default=4000.0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--write_audio", action="store_true")
    options = parser.parse_args()

    import soundfile as sf
    import torch
    from PIL import Image

    from saga_sr.baselines import spectral_band_replication
    from saga_sr.lowfreq import low_frequency_replace
    from saga_sr.lowpass import apply_lowpass, field_lowpass
    from saga_sr.metrics import high_band_error_db, lsd, spectrum_end_hz
    from saga_sr.model import SAGASRModel
    from saga_sr.spectrogram import comparison_figure
    from saga_sr.upsample import upsample

    model, cutoff_hz = SAGASRModel.from_pretrained(options.model), options.cutoff_hz
    options.output.mkdir(parents=True, exist_ok=True)
    for path, start_s, length_s in options.excerpts:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        rate = sf.info(path).samplerate
        if rate != model.config.sample_rate:
            raise UserError(f"{path}: {rate} Hz; allowed: {model.config.sample_rate} Hz")
        frames = -1 if length_s is None else round(length_s * rate)
        samples, _ = sf.read(path, frames, round(start_s * rate), dtype="float32", always_2d=True)
        truth = torch.from_numpy(samples.T.copy())
        lowpass = field_lowpass(cutoff_hz)
        lr_audio = apply_lowpass(truth, rate, lowpass)
        restored = torch.from_numpy(upsample(model, lr_audio.numpy(), rate))
        copied = low_frequency_replace(
            spectral_band_replication(lr_audio[None], cutoff_hz, rate),
            lr_audio[None],
            lowpass.passband_hz(rate),
            rate,
        )[0]
        panels = {}
        top_hz = min(spectrum_end_hz(truth, rate), rate / 2)
        for name, audio in (
            (f"input, {cutoff_hz / 1000:g} kHz", lr_audio),
            ("band replication", copied),
            ("restored", restored),
        ):
            error_db = high_band_error_db(audio[None], truth[None], cutoff_hz, rate, top_hz)
            distance = lsd(audio[None], truth[None], sample_rate=rate)
            panels[f"{name} (LSD {distance.item():.2f}, {error_db.item():.1f} dB)"] = audio
        panels["truth"] = truth
        name = f"{path.stem}-{cutoff_hz / 1000:g}kHz"
        picture = options.output / f"{name}.png"
        comparison_figure(panels, rate, cutoff_hz, picture)
        Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)  # a third
        print(picture)
        if options.write_audio:
            for label, audio in (("input", lr_audio), ("restored", restored), ("truth", truth)):
                sf.write(options.output / f"{name}-{label}.wav", audio.T.numpy(), rate, "FLOAT")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

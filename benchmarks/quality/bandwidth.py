"""Is the measured end of a band where the filter begins to take away? On real audio.

    python benchmarks/quality/bandwidth.py --audio_dir corpus/val

Full-band clips (of each folder, the first 5 s) go through low-passes of several families, forwards
and backwards, at 3, 6 and 9 kHz, with and without added hiss 65 dB below the mean level per octave,
and through MP3 and Vorbis at 16 and 22.05 kHz. Printed is how much the filter attenuates at the
measured end (median, and the share of clips where it is more than 20 dB: a band that stays dull),
for `spectrum_end_hz`, for `band_end_hz` and for the passband of `band_of`; for the codecs, the end
as a fraction of the Nyquist frequency. The last line is the price: full-band clips whose measured
end is lower than before.
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from scipy import signal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.audio.band_end import band_end_hz, band_of, spectrum_end_hz
from saga_sr.audio.index import AudioIndex

RATE = 44100
MEASURES: dict[str, Callable[[torch.Tensor, int], float]] = {
    "cliffs only": spectrum_end_hz,
    "with fades": band_end_hz,
    "passband": lambda audio, rate: band_of(audio, rate).passband_hz,
}
FAMILIES = ("cheby1-8", "butter-2", "butter-4", "butter-6", "butter-10", "bessel-4", "bessel-8")


def full_band_clips(folders: list[Path], per_folder: int) -> list[np.ndarray]:
    """[C, T] each, of files that reach 12 kHz."""
    clips = []
    for folder in folders:
        index = AudioIndex.scan([folder], progress=False)
        step = max(len(index) // per_folder, 1)
        for position in range(0, len(index), step):
            header = index.header(position)
            length = round(min(5.0, header.frames / header.sample_rate) * RATE)
            clip = index.read(position, 0, length, RATE)
            if length > RATE // 2 and spectrum_end_hz(torch.from_numpy(clip), RATE) > 12_000:
                clips.append(clip.astype(np.float64))
    return clips


def design(family: str, cutoff_hz: float) -> np.ndarray:
    name, order = family.split("-")
    if name == "cheby1":
        return signal.cheby1(int(order), 0.05, cutoff_hz, fs=RATE, output="sos")
    if name == "bessel":
        return signal.bessel(int(order), cutoff_hz, norm="mag", fs=RATE, output="sos")
    return signal.butter(int(order), cutoff_hz, fs=RATE, output="sos")


def ends(audio: np.ndarray, rate: int = RATE) -> dict[str, float]:
    rounded = torch.from_numpy(np.round(audio * 32768) / 32768)
    return {name: measure(rounded, rate) for name, measure in MEASURES.items()}


def filter_row(clips: list[np.ndarray], family: str, cutoff_hz: float, hiss: bool) -> str:
    sos, rng = design(family, cutoff_hz), np.random.default_rng(0)
    attenuations: dict[str, list[float]] = {name: [] for name in MEASURES}
    for clip in clips:
        audio = signal.sosfiltfilt(sos, clip, axis=1)
        if hiss:
            level = np.sqrt(np.square(audio).mean() * 10) * 10 ** (-65 / 20)
            audio = audio + level * rng.standard_normal(audio.shape)
        for name, end_hz in ends(audio).items():
            response = signal.sosfreqz(sos, [end_hz], fs=RATE)[1][0]
            attenuations[name].append(-40 * np.log10(np.abs(response) + 1e-10))
    cells = [
        f"{np.median(values):.0f} dB, {100 * np.mean(np.array(values) > 20):.0f} %"
        for values in attenuations.values()
    ]
    return f"| {family}, {cutoff_hz:.0f} Hz{', hiss' * hiss} | {' | '.join(cells)} |"


def codec_row(clips: list[np.ndarray], rate: int, codec: str) -> str:
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    container, subtype = ("MP3", "MPEG_LAYER_III") if codec == "MP3" else ("OGG", "VORBIS")
    for clip in clips:
        low = soxr.resample(clip.T, RATE, rate, quality="VHQ")
        with io.BytesIO() as file:
            soundfile.write(file, low, rate, subtype=subtype, format=container)
            file.seek(0)
            decoded = soundfile.read(file, always_2d=True)[0]
        audio = soxr.resample(decoded, rate, RATE, quality="HQ").T
        for name, end_hz in ends(audio).items():
            found[name].append(end_hz / (rate / 2))
    cells = [
        f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        for values in found.values()
    ]
    return f"| {codec} at {rate} Hz | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--clips", type=int, default=8, help="of each folder, about")
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[3000, 6000, 9000])
    flags = parser.parse_args()
    clips = full_band_clips(flags.audio_dir, flags.clips)
    print(f"{len(clips)} clips\n\n| input | {' | '.join(MEASURES)} |\n|---|---|---|")
    for hiss in (False, True):
        for family in FAMILIES:
            for cutoff_hz in flags.cutoffs:
                print(filter_row(clips, family, cutoff_hz, hiss), flush=True)
    for codec in ("MP3", "Vorbis"):
        for rate in (16_000, 22_050):
            print(codec_row(clips, rate, codec), flush=True)
    before, after = (
        [measure(torch.from_numpy(clip), RATE) for clip in clips]
        for measure in (spectrum_end_hz, band_end_hz)
    )
    lower = [f"{a:.0f} for {b:.0f} Hz" for b, a in zip(before, after, strict=True) if a < 0.97 * b]
    print(f"\nfull-band clips with a lower end: {len(lower)} of {len(clips)}: {', '.join(lower)}")


if __name__ == "__main__":
    main()

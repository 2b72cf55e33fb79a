"""How often is the measured end of a band right, on recordings that no low-pass made?

    python benchmarks/quality/coded_bandwidth.py --audio_dir VAL

Real clips (of each folder; up to 8 s, those that reach 12 kHz) go through codecs, the resamplers of
old devices and residue (`saga_sr.degradation`); printed is where `measure_bandwidth`, which is what
`saga_sr.upsample` believes, puts the end of the band, against what the clip really keeps of its
original (`kept_hz`; for residue the cutoff of the low-pass below it): how often it is right to a
sixth of an octave, how often it is higher (a band that stays dull) or lower (true sound is made
again), the median ratio, and how many clips are said to change in between.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.bandwidth import measure_bandwidth
from saga_sr.audio.index import AudioIndex
from saga_sr.audio.streams import ArraySource
from saga_sr.degradation import Degradation, kept_hz
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.support.randomness import numpy_generator

RATE, SECONDS, RIGHT_OCTAVES = 44_100, 8.0, 1 / 6
NAMES = (
    "mp3-32", "mp3-64", "mp3-128", "aac-32", "aac-64", "opus-6", "opus-12", "opus-32", "vorbis-0",
    "gsm", "ulaw", "zoh-8000", "zoh-11025", "zoh-22050", "linear-8000", "linear-11025",
    "linear-22050",
)  # fmt: skip


def clips_of(folders: list[Path], per_folder: int) -> list[Tensor]:
    """[1, T] each."""
    clips = []
    for folder in folders:
        index = AudioIndex.scan([folder], progress=False)
        for position in range(0, len(index), max(len(index) // per_folder, 1)):
            header = index.header(position)
            length = round(min(SECONDS, header.frames / header.sample_rate) * RATE)
            clip = torch.from_numpy(index.read(position, 0, length, RATE)[:1].copy())
            if length > RATE and spectrum_end_hz(clip, RATE) > 12_000:
                clips.append(clip)
    return clips


def dithered(clip: Tensor) -> Tensor:
    rng = numpy_generator("dither")
    dither = rng.random(tuple(clip.shape)) - rng.random(tuple(clip.shape))
    return (torch.round(clip * 32_768 + torch.from_numpy(dither)) / 32_768).float()


def hissing(level_dbfs: float) -> Callable[[Tensor], Tensor]:
    def add(clip: Tensor) -> Tensor:
        noise = numpy_generator("hiss").standard_normal(tuple(clip.shape))
        return (clip + torch.from_numpy(10 ** (level_dbfs / 20) * noise)).float()

    return add


def whistling(clip: Tensor) -> Tensor:
    return clip + 10 ** (-50 / 20) * torch.sin(
        2 * torch.pi * 19_000 * torch.arange(clip.shape[-1]) / RATE
    )


RESIDUES: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda clip: clip,
    "16-bit dither": dithered,
    "noise at -80 dBFS": hissing(-80),
    "noise at -60 dBFS": hissing(-60),
    "19 kHz at -50 dBFS": whistling,
    "clipped at 70 % of the peak": lambda clip: clip.clamp(-0.7 * clip.max(), 0.7 * clip.max()),
}


def row(name: str, pairs: list[tuple[Tensor, float]]) -> str:
    octaves, changes = [], 0
    for audio, truth_hz in pairs:
        measured = measure_bandwidth(ArraySource(audio, RATE), RATE)
        octaves.append(np.log2(max(measured.end_hz, 1.0) / truth_hz))
        changes += measured.varies
    found = np.array(octaves)
    shares = (np.abs(found) <= RIGHT_OCTAVES, found > RIGHT_OCTAVES, found < -RIGHT_OCTAVES)
    cells = [f"{100 * share.mean():.0f} %" for share in shares]
    return f"| {name} | {' | '.join(cells)} | {2 ** np.median(found):.2f} | {changes} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--clips", type=int, default=8, help="of each folder, about")
    parser.add_argument("--names", nargs="*", default=NAMES, help="degradations (all)")
    parser.add_argument("--no_residue", action="store_true", help="leave out the last rows")
    flags = parser.parse_args()
    clips = clips_of(flags.audio_dir, flags.clips)
    print(f"{len(clips)} clips\n\n| input | right | too high | too low | median ratio | change |")
    print("|---|---|---|---|---|---|")
    for name in flags.names:
        degradation, pairs = Degradation.parse(name), []
        for clip in clips:
            degraded = degradation.apply(clip, RATE)
            kept = kept_hz(clip, degraded, RATE, degradation.own_rate)
            pairs.append((degraded, kept[0]))
        print(row(name, pairs), flush=True)
    if flags.no_residue:
        return
    low = [apply_lowpass(clip, RATE, field_lowpass(4000.0)) for clip in clips]
    for name, add in RESIDUES.items():
        pairs = [(add(clip), 4000.0) for clip in low]
        print(row(f"low-pass at 4 kHz, {name}", pairs), flush=True)


if __name__ == "__main__":
    main()

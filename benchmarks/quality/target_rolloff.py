"""The target roll-off as a control: how much high-frequency energy a trained model adds.

    python benchmarks/quality/target_rolloff.py --model MODEL --audio_dir VAL --picture out.png

Clips are low-passed (Chebyshev-1, order 8, ``--cutoff_hz``) and upsampled with each target. Printed
are, over all clips, the mean level above the cutoff and the mean roll-off of the results, and how
many clips got more energy than with the target before. The picture shows one clip. Paper, Fig. 3.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import signal
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared import RATE, full_band_clips
from saga_sr.audio.spectrogram import comparison_figure
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.model import SAGASRModel
from saga_sr.rolloff import hz_to_unit, spectral_rolloff
from saga_sr.upsample.options import UpsampleOptions, upsample


def level_above_db(audio: Tensor, cutoff_hz: float) -> float:
    """Mean power above ``cutoff_hz`` in dB of full scale."""
    sos = signal.butter(8, 1.1 * cutoff_hz, "highpass", fs=RATE, output="sos")
    return 10 * np.log10(np.square(signal.sosfilt(sos, audio.numpy())).mean() + 1e-20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--audio_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.3, 0.45, 0.6, 0.75, 0.9])
    parser.add_argument("--clips", type=int, default=4, help="of each folder")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--num_steps", type=int)
    parser.add_argument("--cutoff_hz", type=float, default=4000.0)
    parser.add_argument("--picture", type=Path, help="PNG of the first clip")
    flags = parser.parse_args()
    model = SAGASRModel.from_pretrained(flags.model)
    samples = round(flags.seconds * RATE)
    truths = [
        clip
        for folder in flags.audio_dir
        for clip in full_band_clips(folder, flags.clips, samples, 14_000)
    ]
    inputs = [apply_lowpass(clip[None], RATE, field_lowpass(flags.cutoff_hz))[0] for clip in truths]
    before = [-np.inf] * len(inputs)
    panels = {"input": inputs[0]}
    print(
        "| target | level above the cutoff | roll-off of the result | clips with more than before |"
    )
    print("|---|---|---|---|")
    for target in flags.targets:
        options = UpsampleOptions(
            target_rolloff=target, num_steps=flags.num_steps, input_cutoff_hz=flags.cutoff_hz
        )
        results = [upsample(model, clip, RATE, options) for clip in inputs]
        levels = [level_above_db(result, flags.cutoff_hz) for result in results]
        rolloffs = [hz_to_unit(spectral_rolloff(r[None], RATE), RATE).item() for r in results]
        more = sum(now > then for now, then in zip(levels, before, strict=True))
        cells = (f"{np.mean(levels):.1f} dBFS", f"{np.mean(rolloffs):.2f}", f"{more}/{len(levels)}")
        print(f"| {target:g} | " + " | ".join(cells) + " |", flush=True)
        before, panels[f"target {target:g}"] = levels, results[0]
    if flags.picture is not None:
        comparison_figure({**panels, "truth": truths[0]}, RATE, flags.cutoff_hz, flags.picture)


if __name__ == "__main__":
    main()

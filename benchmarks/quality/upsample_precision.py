"""What precision and the batch of windows change in the output, and what they cost.

    python benchmarks/quality/upsample_precision.py --model MODEL recording.wav

The start of the recording is brought to 11.025 kHz, so that half of the band is missing from 5.5
kHz on, and upsampled in several ways. Differences are those from the first row: the root mean
square in dB of full scale and of what the model has added, and the peak. The factor is processor
time over the duration of the audio.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.model import SAGASRModel
from saga_sr.upsample.options import UpsampleOptions, upsample

RATE = 11_025
WAYS = (("32-true", 4), ("32-true", 1), ("32-true", 16), ("bf16-mixed", 4), ("bf16-mixed", 16))


def decibel(values: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.square(values, dtype=np.float64).mean()) + 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--num_steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    model = SAGASRModel.from_pretrained(flags.model)
    audio, rate = soundfile.read(flags.recording, dtype="float32", always_2d=True)
    mono = audio[: round(flags.seconds * rate)].mean(axis=1)
    given = soxr.resample(mono, rate, RATE)[None]
    reference = added = None
    print("| precision | window_batch | difference | of the added | peak | factor |")
    print("|---|---|---|---|---|---|")
    for precision, batch in WAYS:
        options = UpsampleOptions(
            num_steps=flags.num_steps, precision=precision, window_batch=batch, input_cutoff_hz=5000
        )
        upsample(model, given[:, :RATE], RATE, options)  # warms up
        start = time.process_time()
        found = upsample(model, given, RATE, options)
        factor = (time.process_time() - start) / flags.seconds
        if reference is None or added is None:
            plain = soxr.resample(given[0], RATE, model.config.sample_rate)[: found.shape[1]]
            reference, added = found, found - plain
        change = found - reference
        peak_db = 20 * np.log10(np.abs(change).max() + 1e-12)
        cells = f"{decibel(change):.0f} dB | {decibel(change) - decibel(added):.0f} dB"
        print(f"| {precision} | {batch} | {cells} | {peak_db:.0f} dB | {factor:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""What `--lowpass_on_device` moves: low-pass and f_l of single clips in a worker, or of batches.

    python benchmarks/speed/device_lowpass.py
    python benchmarks/speed/device_lowpass.py --device cuda --batch_sizes 2 16

Both ways call `saga_sr.dataset.degrade` on the same stereo clips with filters drawn as in training,
in turns, in one process on one thread. A worker has designed the filter before (the metadata's
`lr_passband_hz` needs it either way), so its design is in the time of the batched way only, which
makes it again in the trainer's process. The time is this process's own processor time; that of a
GPU is on the clock, from the call until the GPU is done. Medians are reported. Not in the times:
workers also pass each LR clip on to the trainer and from there to the device.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# ruff: noqa: E402
from benchmarks.shared import one_thread

if __name__ == "__main__":
    one_thread()

import numpy as np
import torch
from data_loading import RATE, make_music
from torch import Tensor

from saga_sr.dataset import degrade
from saga_sr.lowpass import Lowpass, LowpassOptions, draw_lowpass

SAMPLE_SIZES = (65_536, 262_144)  # small model, full model


def draw_filters(rng: np.random.Generator, count: int) -> list[Lowpass]:
    return [draw_lowpass(rng, RATE / 2, LowpassOptions()) for _ in range(count)]


def for_degrade(lowpass: Lowpass) -> dict[str, Any]:
    """What `degrade` reads of an item's metadata."""
    return {"lowpass": asdict(lowpass), "rolloff_high": 0.0}


def in_workers(hr: Tensor, filters: list[Lowpass]) -> None:
    """Clip by clip."""
    for clip, lowpass in zip(hr, filters, strict=True):
        degrade(clip[None], [for_degrade(lowpass)], RATE)


def in_batch(hr: Tensor, filters: list[Lowpass]) -> None:
    """The whole batch at once, where it lies."""
    degrade(hr, [for_degrade(lowpass) for lowpass in filters], RATE)
    if hr.is_cuda:
        torch.cuda.synchronize()


def measure(hr: Tensor, device: str, repeats: int) -> tuple[float, float]:
    """Median seconds per clip (in workers, in a batch on ``device``)."""
    rng, on_device = np.random.default_rng(0), hr.to(device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(2 + repeats):  # two rounds to warm up
        designed, new = draw_filters(rng, len(hr)), draw_filters(rng, len(hr))
        for lowpass in designed:
            lowpass.passband_hz(RATE)
        worker_began = time.process_time()
        in_workers(hr, designed)
        worker_s = time.process_time() - worker_began
        batch_began = clock()
        in_batch(on_device, new)
        times.append((worker_s, clock() - batch_began))
    worker_s, batch_s = (statistics.median(column) for column in zip(*times[2:], strict=True))
    return worker_s / len(hr), batch_s / len(hr)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Low-pass and f_l per clip, as Markdown.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--repeats", type=int, default=20)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}; stereo, one thread, median of {args.repeats}\n"
    )
    print(f"| clip, s | batch | in workers, ms | in a batch on {args.device}, ms | ratio |")
    print("|---|---|---|---|---|")
    music = torch.from_numpy(make_music(60.0, np.random.default_rng(0)).T.astype(np.float32))
    for size in SAMPLE_SIZES:
        for batch in args.batch_sizes:
            starts = np.linspace(0, music.shape[1] - size, batch, dtype=int)
            hr = torch.stack([music[:, start : start + size] for start in starts])
            worker_s, batch_s = measure(hr, args.device, args.repeats)
            print(
                f"| {size / RATE:.2f} | {batch} | {1000 * worker_s:.2f} | {1000 * batch_s:.2f} "
                f"| {worker_s / batch_s:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

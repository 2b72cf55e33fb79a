"""What several measurements share. Imported before numpy and torch, so it imports them in use."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
RATE = 44100


def one_thread() -> None:
    """Have numpy and torch, imported after this, compute on one thread."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


def medians_s(
    ways: Sequence[Callable[[], object]], repeats: int, device: str = "cpu"
) -> list[float]:
    """Median seconds of each way, taken in turns after one round to warm up.

    On a CPU this process's processor time, which stays fair on a machine that does other things
    as well; on a GPU the clock's, until the GPU is done.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    now = time.perf_counter if on_gpu else time.process_time
    seconds: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats + 1):
        for way, kept in zip(ways, seconds, strict=True):
            began = now()
            way()
            if on_gpu:
                torch.cuda.synchronize()
            if repeat:
                kept.append(now() - began)
    return [statistics.median(one) for one in seconds]


def full_band_clips(
    folder: Path, most: int, samples: int, above_hz: float, channels: int = 1, whole: bool = False
) -> Iterator[Tensor]:
    """Of the first ``most`` files of a folder whose spectrum reaches ``above_hz``: clips [C, T].

    T is ``samples`` at 44.1 kHz from the file's beginning, less where the file is shorter, and at
    least half a second; ``whole`` takes the file's middle and leaves shorter files out.
    """
    import torch

    from saga_sr.audio.band_end import spectrum_end_hz
    from saga_sr.audio.index import AudioIndex

    index = AudioIndex.scan([folder], progress=False)
    for position in range(len(index)):
        if most == 0:
            return
        header = index.header(position)
        frames = round(header.frames * RATE / header.sample_rate)
        if frames < (samples if whole else RATE // 2):
            continue
        start, length = (frames - samples) // 2 if whole else 0, min(samples, frames)
        clip = torch.from_numpy(index.read(position, start, length, RATE))
        if len(clip) != channels:
            clip = clip.mean(0, keepdim=True).expand(channels, -1)
        if spectrum_end_hz(clip, RATE) > above_hz:
            most -= 1
            yield clip

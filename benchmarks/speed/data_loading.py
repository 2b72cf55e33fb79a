"""How fast training clips are made on one core, against the straightforward way.

    python benchmarks/speed/data_loading.py                     # 3 min stereo WAV, FLAC, OGG, MP3
    python benchmarks/speed/data_loading.py --formats OGG FLAC --clips 40

Both ways make the same item from the same files: a stereo crop of 262,144 samples (5.94 s), its
roll-off, its low-passed copy. The baseline decodes the whole file, crops, takes the roll-off by
librosa and filters with scipy.signal.sosfiltfilt. Ours is `saga_sr.dataset.SAGASRDataset` as
training uses it, with where the clip's spectrum ends (the weight-free family needs it) and without
(the autoencoder's does not). They take turns clip by clip in one process on one thread. The time is
the process's own processor time (the files lie in the disk cache), so that it stays fair on a
machine that is doing other things as well; medians are reported. The files are synthetic (decaying
harmonic notes and noise), made in a temporary folder.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared import one_thread

if __name__ == "__main__":
    one_thread()

import librosa
import numpy as np
import soundfile
import torch
from scipy import signal

from saga_sr.audio.index import AudioIndex
from saga_sr.dataset import ClipReader, SAGASRDataset

RATE = 44100
SAMPLE_SIZE = 262_144
FORMATS = ("WAV", "FLAC", "OGG", "MP3")


def make_music(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Stereo [T, 2] with harmonics, onsets and noise: codecs work as hard as on music."""
    length = round(duration_s * RATE)
    audio = 0.01 * rng.standard_normal((length, 2))
    note_s, harmonics = np.arange(RATE // 2) / RATE, np.arange(1, 20)[:, None]
    notes = [
        np.sum(np.sin(2 * np.pi * pitch_hz * harmonics * note_s) / harmonics, axis=0)
        * np.exp(-8 * note_s)
        for pitch_hz in 110 * 2 ** (np.arange(36) / 12)
    ]
    for start in range(0, length - len(note_s), RATE // 8):
        note = notes[rng.integers(36)] * rng.uniform(0.02, 0.1)
        audio[start : start + len(note)] += note[:, None] * rng.uniform(0.5, 1.0, 2)
    return np.clip(audio, -1, 1)


def straightforward_item(
    path: Path, rng: np.random.Generator, sample_size: int = SAMPLE_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Decode everything, crop, roll-off, forward-backward low-pass."""
    audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
    start = rng.integers(len(audio) - sample_size + 1)
    hr = np.ascontiguousarray(audio[start : start + sample_size].T)
    rolloff_hz = _librosa_rolloff(hr)
    cutoff_hz = max(2000.0, min(rng.uniform(2000, 16000), 0.94 * rolloff_hz))
    order = int(rng.integers(2, 11))
    sections = signal.cheby1(order, 0.1, cutoff_hz, fs=RATE, output="sos")
    lr = signal.sosfiltfilt(sections, hr, axis=-1).astype(np.float32)
    _librosa_rolloff(lr)
    return hr, lr


def _librosa_rolloff(audio: np.ndarray) -> float:
    magnitude = np.abs(librosa.stft(audio, n_fft=2048, hop_length=512)).sum(axis=(0, 2))
    return float(np.searchsorted(np.cumsum(magnitude), 0.985 * magnitude.sum()) * RATE / 2048)


def median_times_s(ways: dict[str, Callable[[int], object]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each way, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(-2, repeats):  # two rounds to warm up
        for name, run in ways.items():
            began = time.process_time()
            run(repeat + 2)
            if repeat >= 0:
                times[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(
    file_format: str, tracks: list[np.ndarray], folder: Path, args: argparse.Namespace
) -> dict[str, float]:
    """Seconds per clip of each way, for one file format."""
    below = folder / file_format
    below.mkdir()
    for number, audio in enumerate(tracks):
        path = below / f"{number}.{file_format.lower()}"
        with soundfile.SoundFile(path, "w", RATE, audio.shape[1]) as file:
            for start in range(0, len(audio), RATE):  # libsndfile crashes on minutes of Vorbis
                file.write(audio[start : start + RATE])
    index = AudioIndex.scan([below], cache_dir=folder / "cache", progress=False)
    reader = ClipReader(index, SAMPLE_SIZE)
    dataset = SAGASRDataset(reader, seed=0, compute_rolloff=True)
    autoencoder = SAGASRDataset(reader, seed=0, compute_rolloff=True, measure_end=False)
    rng = np.random.default_rng(0)
    return median_times_s(
        {
            "baseline": lambda clip: straightforward_item(index.path(clip % len(tracks)), rng),
            "ours": lambda clip: dataset[clip],
            "autoencoder": lambda clip: autoencoder[clip],
        },
        args.clips,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Clips per second and core, as Markdown.")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--duration_s", type=float, default=180.0, help="of each file")
    parser.add_argument("--files", type=int, default=3, help="per format")
    parser.add_argument("--clips", type=int, default=30, help="timed per format and way")
    return parser


def main() -> None:
    args = build_parser().parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, libsndfile {soundfile.__libsndfile_version__}; "
        f"{args.duration_s:g} s stereo files, one thread, median of {args.clips}\n"
    )
    print("| file | baseline, ms | ours, ms | ours without hr_end_hz, ms | ratio |")
    print("|---|---|---|---|---|")
    tracks = [make_music(args.duration_s, np.random.default_rng(k)) for k in range(args.files)]
    for file_format in args.formats:
        with tempfile.TemporaryDirectory() as folder:
            times = measure(file_format, tracks, Path(folder), args)
        milliseconds = " | ".join(f"{1000 * seconds:.1f}" for seconds in times.values())
        ratio = times["baseline"] / times["ours"]
        print(f"| {file_format} | {milliseconds} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()

"""Memory and speed of `saga_sr.upsample` against the length of the file.

    python benchmarks/speed/upsample_memory.py --minutes 1 10 60 --num_steps 1
    python benchmarks/speed/upsample_memory.py --model MODEL --num_steps 8 24 100 --device cuda

Each row is one process that upsamples a synthetic WAV at 22.05 kHz (glides and noise) to a file.
Peak memory is the process's largest resident set, less what it held when the model was loaded; on a
GPU, PyTorch's largest allocation. The real-time factor is processing time over the duration of the
audio (smaller is faster). Without ``--model`` the demo config's shapes are used with random
weights: memory and speed do not depend on their values.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

RATE = 22_050
DEMO = Path(__file__).resolve().parents[2] / "saga_model_config_demo.json"


def write_input(path: Path, minutes: float, channels: int) -> None:
    """A WAV, without holding it in memory."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, channels, "PCM_16") as file:
        for start in range(0, round(60 * minutes * RATE), RATE):
            t = (start + np.arange(RATE)) / RATE
            glide = 0.3 * np.sin(2 * np.pi * (200 * t + 300 * np.sin(t)))
            file.write(glide[:, None] + 0.02 * rng.standard_normal((RATE, channels)))


def build_model(folder: Path) -> None:
    """Random weights in the demo config's shapes."""
    import torch

    from saga_sr.config import load_model_config
    from saga_sr.model import SAGASRModel

    torch.manual_seed(0)
    SAGASRModel(load_model_config(DEMO)).save_pretrained(folder)


def measure(flags: argparse.Namespace) -> dict[str, float]:
    """Upsample one file in this process."""
    import torch

    from saga_sr.audio.bandwidth import measure_bandwidth
    from saga_sr.audio.streams import FileSource, write_audio
    from saga_sr.model import SAGASRModel
    from saga_sr.upsample.options import UpsampleOptions, restored

    torch.set_num_threads(flags.threads)
    model = SAGASRModel.from_pretrained(flags.model).to(flags.device)
    options = UpsampleOptions(
        num_steps=flags.num_steps[0],
        input_cutoff_hz=10_000,
        precision=flags.precision,
        window_batch=flags.window_batch,
    )
    source = FileSource(flags.input)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    bandwidth = measure_bandwidth(source, 44_100)
    pieces = restored(model, source, options, bandwidth)
    output, frames = flags.input.with_suffix(".out.wav"), 2 * source.frames
    write_audio(output, pieces, 44_100, source.channels, frames, "float")
    seconds = time.perf_counter() - start
    peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if flags.device == "cuda":
        peak_mb = torch.cuda.max_memory_allocated() / 2**20
    return {
        "peak_mb": peak_mb,
        "before_mb": before / 1024,
        "rtf": seconds * RATE / source.frames,
    }


def run_row(flags: argparse.Namespace, model: str, path: Path, num_steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--input", str(path), "--model", model]
    command += ["--num_steps", str(num_steps), "--device", flags.device]
    command += ["--precision", flags.precision, "--threads", str(flags.threads)]
    if flags.window_batch is not None:
        command += ["--window_batch", str(flags.window_batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="exported model (default: demo shapes, random weights)")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--num_steps", type=int, nargs="+", default=[1])
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--window_batch", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)  # a row's own process
    return parser.parse_args()


def main() -> None:
    flags = parse_flags()
    if flags.input is not None:
        print(json.dumps(measure(flags)))
        return
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {flags.threads} thread(s), {flags.channels} channel(s)\n")
    print("| length | device | steps | peak memory | real-time factor |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        model = flags.model
        if model is None:
            model = str(Path(folder) / "model")
            build_model(Path(model))
        for minutes in flags.minutes:
            path = Path(folder) / "input.wav"
            write_input(path, minutes, flags.channels)
            for num_steps in flags.num_steps:
                row = run_row(flags, model, path, num_steps)
                memory = f"{row['peak_mb']:.0f} MB (+ {row['before_mb']:.0f} MB at the start)"
                cells = (f"{minutes:g} min", flags.device, num_steps, memory, f"{row['rtf']:.3f}")
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()

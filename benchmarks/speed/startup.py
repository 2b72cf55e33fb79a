"""Start-up: `--help` of every command, and the first training step of the demo config.

    python benchmarks/speed/startup.py                           # makes its own audio
    python benchmarks/speed/startup.py --train_dir corpus/train

The baseline of `--help` is `import torch`, which it must not do. The first step is timed from the
start of the process to the first loss on the progress bar, on a warm file cache: each command runs
once before it is timed. Beside the seconds on the clock stand the processor seconds of the command,
which do not grow on a machine that does other things as well.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    ["train_saga_sr.py"],
    ["-m", "saga_sr.upsample"],
    ["-m", "saga_sr.evaluate"],
    ["-m", "saga_sr.compare"],
    ["-m", "saga_sr.captions"],
    ["-m", "saga_sr.pre_encode"],
    ["-m", "saga_sr.app"],
)
Seconds = tuple[float, float]  # on the clock, of the processor


def processor_s() -> float:
    """Processor seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def seconds(*arguments: str) -> Seconds:
    """Seconds of a Python process, the second time it runs."""
    for _ in range(2):
        began, used = time.perf_counter(), processor_s()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        took = time.perf_counter() - began, processor_s() - used
    return took


def seconds_to_first_step(train_dir: Path, config: Path) -> Seconds:
    """From the start of the process to the first loss on the progress bar, the second time."""
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "train_saga_sr.py", "--train_dir", str(train_dir.resolve()),
                "--model_config", str(config), "--batch_size", "8", "--max_steps", "64",
                "--val_num_train_clips", "0", "--output_dir", folder, "--accelerator", "cpu",
            ]  # fmt: skip
            began, used = time.perf_counter(), processor_s()
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            assert process.stdout is not None
            shown = b""
            while b"train/loss" not in shown:
                if not (more := os.read(process.stdout.fileno(), 4096)):
                    raise SystemExit(f"the training ended early:\n{shown.decode()}")
                shown += more
            took = time.perf_counter() - began
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
            process.communicate()
    return took, processor_s() - used


def make_audio(folder: Path) -> Path:
    """Ten stereo files of ten seconds."""
    rng = np.random.default_rng(0)
    for number in range(10):
        audio = 0.1 * rng.standard_normal((441_000, 2))
        soundfile.write(folder / f"{number}.flac", audio, 44100)
    return folder


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--train_dir", type=Path, help="audio; default: made for the purpose")
    parser.add_argument("--first_step_only", action="store_true")
    parser.add_argument("--model_config", type=Path, default=Path("saga_model_config_demo.json"))
    return parser


def main() -> None:
    options = build_parser().parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| command | on the clock (s) | of the processor (s) |\n|---|---|---|")

    def row(name: str, took: Seconds) -> None:
        print(f"| {name} | {took[0]:.2f} | {took[1]:.2f} |", flush=True)

    row("`python -c 'import torch'` (baseline)", seconds("-c", "import torch"))
    for command in () if options.first_step_only else COMMANDS:
        row(f"`python {' '.join(command)} --help`", seconds(*command, "--help"))
    with tempfile.TemporaryDirectory() as folder:
        train_dir = options.train_dir or make_audio(Path(folder))
        first = seconds_to_first_step(train_dir, options.model_config)
    row(f"first training step, `{options.model_config}`", first)


if __name__ == "__main__":
    main()

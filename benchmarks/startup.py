"""Start-up: `--help` of every command, and the first training step of the demo config.

    python benchmarks/startup.py --train_dir corpus/train

The baseline of `--help` is `import torch`, which it must not do. The first step is timed from the
start of the process on a warm file cache: each command runs once before it is timed.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = (
    ["train_saga_sr.py"],
    ["-m", "saga_sr.upsample"],
    ["-m", "saga_sr.evaluate"],
    ["-m", "saga_sr.compare"],
    ["-m", "saga_sr.captions"],
    ["-m", "saga_sr.pre_encode"],
)


def seconds(*arguments: str) -> float:
    """Seconds of a Python process, the second time it runs."""
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        took = time.perf_counter() - start
    return took


def seconds_to_first_step(train_dir: Path, config: Path) -> float:
    """From the start of the process to the first line of metrics, the second time."""
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "train_saga_sr.py", "--train_dir", str(train_dir.resolve()),
                "--model_config", str(config), "--batch_size", "8", "--max_steps", "64",
                "--val_num_train_clips", "0", "--output_dir", folder,
            ]  # fmt: skip
            start = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            assert process.stderr is not None
            shown = "-"
            while shown and "loss" not in shown:  # the progress bar shows the first loss
                shown = process.stderr.read(64)
            took = time.perf_counter() - start
            process.kill()
            process.communicate()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--train_dir", type=Path, required=True)
    parser.add_argument("--model_config", type=Path, default=Path("saga_model_config_demo.json"))
    options = parser.parse_args()
    torch_s = seconds("-c", "import torch")
    rows = [("python -c 'import torch' (baseline)", torch_s)]
    rows += [(f"python {' '.join(command)} --help", seconds(*command, "--help"))
             for command in COMMANDS]  # fmt: skip
    rows.append(("first training step, demo config", seconds_to_first_step(
        options.train_dir, options.model_config)))  # fmt: skip
    writer = csv.writer(sys.stdout, delimiter="|")
    for name, took in [*rows]:
        writer.writerow((f" {name} ", f" {took:.2f} s ", f" {torch_s / took:.1f} x "))


if __name__ == "__main__":
    main()

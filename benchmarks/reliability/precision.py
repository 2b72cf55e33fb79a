"""How far apart training in bfloat16 and in float32 ends.

    python benchmarks/reliability/precision.py --train_dir TRAIN --val_dir VAL --max_steps 60

The same draws, the same initial weights, the demo model, on the CPU. Printed are the mean loss of
the last ten steps and the last validation of each run, and their relative differences. Weights,
averages and moments are float32 in both.
"""

# ruff: noqa: E402  (the path comes first)
import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from forks import train

from saga_sr.training.metrics_csv import read_metrics

SHOWN = ("loss of the last 10 steps", "val/loss", "val/lsd", "val/lsd_hf", "val/si_sdr")


def end_of_run(folder: Path) -> dict[str, float]:
    """The numbers that are compared."""
    rows = read_metrics(folder / "metrics.csv")
    losses = [value for _, name, value in rows if name == "train/loss"]
    return {name: value for _, name, value in rows} | {SHOWN[0]: sum(losses[-10:]) / 10}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--train_dir", type=Path, required=True)
    parser.add_argument("--val_dir", type=Path, required=True)
    parser.add_argument("--model_config", type=Path, default=ROOT / "saga_model_config_demo.json")
    parser.add_argument("--max_steps", type=int, default=60)
    parser.add_argument("--batch_size", type=int, default=2)
    options = parser.parse_args()
    ends = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("32-true", "bf16-mixed"):
            output = Path(folder) / precision
            argv = [
                "--train_dir", options.train_dir, "--val_dir", options.val_dir, "--model_config",
                options.model_config, "--output_dir", output, "--batch_size", options.batch_size,
                "--max_steps", options.max_steps, "--val_every_n_steps", options.max_steps,
                "--val_num_clips", 4, "--val_num_train_clips", 0, "--val_num_steps", 8,
                "--num_workers", 0, "--accelerator", "cpu", "--precision", precision,
                "--checkpoint_every_n_steps", options.max_steps, "--compute_rolloff",
            ]  # fmt: skip
            if os.fork() == 0:
                os.dup2(os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT), 1)
                os._exit(train([str(word) for word in argv]))
            if os.wait()[1]:
                raise SystemExit(Path(f"{output}.log").read_text(errors="replace")[-2000:])
            ends.append(end_of_run(output))
    for name in SHOWN:
        first, second = (end[name] for end in ends)
        print(f"{name:26s} float32 {first:9.4f}  bfloat16 {second:9.4f}  "
              f"difference {abs(second - first) / abs(first):.2%}")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What `make demo` runs: hear the shipped model, then train it further and measure both.

    python scripts/demo.py [--steps 100] [--output runs/demo]

Every stage is one of the README's commands, printed before it runs:

1. fetch a real corpus (FoxDot's sounds, from the Python package index);
2. take a held-out sound, cut it off at 4 kHz, and upsample it with the shipped model;
3. fine-tune the shipped model on these sounds alone, for a few minutes;
4. measure both models on all held-out sounds of it, beside the unprocessed input.

The shipped model knows a little of everything, these instruments among it: a hundred steps more
change next to nothing. What it shows is the way.
"""

# ruff: noqa: E402  (the path comes first)
import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from saga_sr.support.errors import UserError, run_cli

MODEL = ROOT / "models" / "saga-sr-demo"
CUTOFF_HZ = 4000
CATEGORY = "effects"  # nearly all of FoxDot
FINE_TUNING = ("--learning_rate", "3e-4", "--batch_size", "8", "--augment")


def run(title: str, *command: str | Path) -> None:
    """Print and run one command of the project."""
    words = [str(word) for word in command]
    print(f"\n=== {title}\n$ python {shlex.join(words)}", flush=True)
    if code := subprocess.run([sys.executable, *words], cwd=ROOT).returncode:
        raise UserError(f"the demo stops: the command above ended with exit code {code}")


def longest_file(folder: Path) -> Path:
    """The longest held-out sound: there is most to hear in it."""
    import soundfile as sf

    files = sorted(path for path in folder.rglob("*") if path.suffix in {".wav", ".flac", ".ogg"})
    if not files:
        raise UserError(f"{folder}: holds no audio")
    return max(files, key=lambda path: sf.info(path).duration)


def write_low_passed(source: Path, target: Path) -> None:
    """The field's test input: Chebyshev, order 8, at `CUTOFF_HZ`."""
    import soundfile as sf
    import torch

    from saga_sr.lowpass import apply_lowpass, field_lowpass
    from saga_sr.support.files import atomic_path

    audio, rate = sf.read(source, dtype="float32", always_2d=True)
    low = apply_lowpass(torch.from_numpy(audio.T.copy()), rate, field_lowpass(CUTOFF_HZ))
    with atomic_path(target) as temporary:
        sf.write(temporary, low.T.numpy(), rate, subtype="FLOAT")


def draw(panels: dict[str, Path], picture: Path) -> None:
    """One picture with the spectrogram of each file."""
    import soundfile as sf
    import torch

    from saga_sr.audio.spectrogram import comparison_figure

    audio = {}
    for label, path in panels.items():
        samples, rate = sf.read(path, dtype="float32", always_2d=True)
        audio[label] = torch.from_numpy(samples.T.copy())
    comparison_figure(audio, rate, CUTOFF_HZ, picture)


def hear(output: Path, corpus: Path, model: Path, name: str) -> Path:
    """Upsample the held-out sound with ``model``; returns the picture."""
    truth, low, high = longest_file(corpus / "val"), output / "input.wav", output / f"{name}.wav"
    write_low_passed(truth, low)
    run(f"Upsample a held-out sound with the {name} model", "-m", "saga_sr.upsample", low,
        "--model", model, "--output", high, "--overwrite")  # fmt: skip
    picture = output / f"{name}.png"
    draw({"input, 4 kHz": low, name: high, "truth": truth}, picture)
    print(f"look at   {picture}\nlisten to {low}\n          {high}\n          {truth}")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of fine-tuning")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--corpus", type=Path, default=ROOT / "corpus")
    options = parser.parse_args()
    output, corpus, start = options.output.resolve(), options.corpus.resolve(), time.monotonic()
    run("Fetch a corpus", "scripts/fetch_corpus.py", "--output", corpus)
    hear(output, corpus, MODEL, "shipped")
    print(f"\nThat took {time.monotonic() - start:.0f} s. Now the same model learns this corpus.")
    tuned = output / "training" / "export"
    train, held_out = corpus / "train_fullband" / CATEGORY, corpus / "val" / CATEGORY
    run("Fine-tune it", "train_saga_sr.py", "--train_dir", train,
        "--val_dir", held_out, "--model_config", MODEL / "config.json", "--init_from", MODEL,
        *FINE_TUNING, "--max_steps", str(options.steps), "--val_every_n_steps", str(options.steps),
        "--val_num_clips", "8", "--output_dir", tuned.parent, "--overwrite")  # fmt: skip
    hear(output, corpus, tuned, "fine-tuned")
    run("Measure both on held-out sounds", "-m", "saga_sr.evaluate", "--data", held_out,
        "--model", f"shipped={MODEL}", f"fine-tuned={tuned}", "--cutoffs", str(CUTOFF_HZ),
        "--clip_seconds", "2", "--output", output / "evaluation", "--overwrite")  # fmt: skip
    print(f"\nDone in {(time.monotonic() - start) / 60:.1f} min. Look at {output / 'shipped.png'}, "
          f"{output / 'fine-tuned.png'} and {output / 'evaluation'}.")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

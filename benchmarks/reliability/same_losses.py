"""Does a change of the code change what is learnt? Training here against another checkout.

    git worktree add ../before HEAD~20
    python benchmarks/reliability/same_losses.py ../before

Both checkouts train the same steps with the same seed on the same clips, by their own
``train_saga_sr.py`` in processes of their own: the small config with a thin VAE at F0, F1 and F2
(random weights), and the demo config. Printed is the largest relative difference
of the losses, in training and in validation, and of what restored audio measures; 0 means bit for
bit. The exit code is 1 where a loss of the VAE's stages differs at all, or anything else by more
than rounding.
"""

# ruff: noqa: E402  (the paths come first)
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_models import shipped, text_and_rolloff, tiny_vae
from tiny_runs import flags, make_corpus
from tiny_text_models import build_tiny_t5

from saga_sr.training.metrics_csv import read_metrics

ROUNDING = 1e-5
CLOCK = "train/clips_per_s"
LOSSES = ("train/", "val/loss")


def thin_small(t5: Path) -> dict[str, Any]:
    """The small config with the VAE of the tests, F0, its text encoder the one in ``t5``."""
    thin, raw = tiny_vae(), shipped("saga_model_config_small.json")
    raw["sample_size"] = 16384
    raw["model"]["pretransform"] = thin["model"]["pretransform"]
    latent_dim = thin["model"]["pretransform"]["config"]["latent_dim"]
    raw["model"]["io_channels"] = latent_dim
    raw["model"]["diffusion"]["config"] |= {
        "io_channels": latent_dim, "input_concat_dim": latent_dim,
    }  # fmt: skip
    raw["model"]["conditioning"]["configs"][0]["config"] |= {"t5_model_name": str(t5), "dim": 24}
    return raw


def numbers(checkout: Path, argv: list[str], output: Path) -> dict[tuple[int, str], float]:
    """All that a run of ``checkout`` logs, but its speed."""
    command = [sys.executable, str(checkout / "train_saga_sr.py"), *argv]
    run = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{checkout}: the run ended with {run.returncode}\n{run.stderr[-2000:]}")
    rows = read_metrics(output / "metrics.csv")
    return {(step, name): value for step, name, value in rows if name != CLOCK}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("before", type=Path, help="another checkout of this repository")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_corpus(root)
        small = thin_small(build_tiny_t5(root / "t5", dim=24))
        stages = {"F0": small, "F1": text_and_rolloff(small), "F2": text_and_rolloff(small)}
        stages["F1"]["model"]["diffusion"]["compute_rolloff"] = False
        stages["demo"] = shipped("saga_model_config_demo.json")
        for name, raw in stages.items():
            config = root / f"{name}.json"
            config.write_text(json.dumps(raw), encoding="utf-8")
            logs = []
            for number, checkout in enumerate((options.before.resolve(), ROOT)):
                output = root / f"{name}-{number}"
                more = ("--allow_random_pretransform", "--disable_caption") * (name != "demo")
                argv = flags(
                    root, output, *more, model_config=config, max_steps=options.steps,
                    val_every_n_steps=options.steps, val_num_train_clips=0,
                )  # fmt: skip
                logs.append(numbers(checkout, argv, output))
            before, now = logs
            shared = before.keys() & now.keys()
            worst = {"losses": 0.0, "restored audio": 0.0}
            for key in shared:
                kind = "losses" if key[1].startswith(LOSSES) else "restored audio"
                difference = abs(now[key] - before[key]) / max(abs(before[key]), 1e-6)
                worst[kind] = max(worst[kind], difference)
            failed |= worst["losses"] > (ROUNDING if name == "demo" else 0)
            failed |= worst["restored audio"] > ROUNDING
            only = {key[1] for key in before.keys() ^ now.keys()}
            told = ", ".join(f"{kind} {value:.1e}" for kind, value in worst.items())
            print(f"{name:5} {len(shared)} numbers, largest differences: {told}", flush=True)
            if only:
                print(f"      in one of them only: {', '.join(sorted(only))}", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

"""What `make stages` runs: the user's plan, F0 to F1 to F2, trained and measured on one machine.

    python scripts/stages.py [--corpus corpus] [--output runs/stages] [--jobs 2]

Each run is one command of the plan on `saga_model_config_demo.json`, printed before it runs; the
JSON's one key is edited in a copy. A run that added a condition stands beside one that went on
equally long without it, or the comparison would say nothing:

    f0 --+-- f1 --+-- f2            f1: "prompt"; f2: --compute_rolloff
         |        +-- f1_longer
         +-- f0_longer

It takes hours and goes on where it stopped: a finished run is not touched, one that was stopped is
resumed from its last checkpoint. Then all are measured on the same held-out clips, with wrong texts
and wrong roll-offs as controls, and docs/stages.md is written (`--page`).
"""

# ruff: noqa: E402  (the path comes first)
import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from saga_sr.support.errors import UserError, run_cli

CONFIG = ROOT / "saga_model_config_demo.json"
CATEGORIES = ("music", "speech", "effects")
CUTOFFS_HZ = ("4000", "8000")
PIECE_SECONDS = 15  # a long held-out file is several clips


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        name: of its folder.
        start: the run whose export it starts from; None starts afresh.
        ids: ``cross_attention_cond_ids``, the plan's one JSON key.
        flags: beside those that all runs share.
    """

    name: str
    start: str | None
    ids: tuple[str, ...]
    flags: tuple[str, ...] = ()


STAGES = (
    Stage("f0", None, (), ("--disable_caption",)),
    Stage("f1", "f0", ("prompt",)),
    Stage("f0_longer", "f0", (), ("--disable_caption",)),
    Stage("f2", "f1", ("prompt",), ("--compute_rolloff",)),
    Stage("f1_longer", "f1", ("prompt",)),
)


def run(title: str, log: Path | None, *command: str | Path) -> None:
    """Print and run one command of the project, its output into ``log``."""
    words = [str(word) for word in command]
    print(f"\n=== {title}\n$ python {shlex.join(words)}", flush=True)
    if log is None:
        code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            code = subprocess.run(
                [sys.executable, *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            ).returncode
    if code:
        where = "" if log is None else f"; {log} says why"
        raise UserError(f"{title}: the command above ended with exit code {code}{where}")


# --- training -----------------------------------------------------------------------------------
def write_config(stage: Stage, output: Path) -> Path:
    """The demo's config with the stage's one key changed."""
    from saga_sr.support.files import write_json_atomic

    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    config["model"]["diffusion"]["cross_attention_cond_ids"] = list(stage.ids)
    path = output / f"{stage.name}.json"
    write_json_atomic(path, config)
    return path


def finished(folder: Path) -> bool:
    """Whether a run has reached its last step: its export is written last."""
    return (folder / "export" / "config.json").is_file()


def train(stage: Stage, options: argparse.Namespace) -> None:
    """Train a run, or go on with it, or leave it as it is."""
    folder, corpus = options.output / stage.name, options.corpus
    if finished(folder):
        print(f"{stage.name}: finished")
        return
    first = stage.start is None
    command: list[str | Path] = ["train_saga_sr.py", "--train_dir"]
    command += [corpus / "train_fullband" / category for category in CATEGORIES]
    command += ["--val_dir", *(corpus / "val" / category for category in CATEGORIES)]
    command += ["--model_config", write_config(stage, options.output), *stage.flags]
    command += ["--max_steps", str(options.first_steps if first else options.steps)]
    command += shlex.split(options.flags)
    if stage.start is not None:
        command += ["--init_from", options.output / stage.start / "export"]
    if any((folder / "checkpoints").glob("step=*.ckpt")):
        command += ["--checkpoint", "last"]
    run(stage.name, options.output / f"{stage.name}.log", *command, "--output_dir", folder)


def train_all(options: argparse.Namespace) -> None:
    """Train every run after the one that it starts from, ``--jobs`` at once."""
    done: set[str | None] = {None}
    waiting = list(STAGES)
    with ThreadPoolExecutor(options.jobs) as pool:
        while waiting:
            ready = [stage for stage in waiting if stage.start in done]
            list(pool.map(lambda stage: train(stage, options), ready))
            done |= {stage.name for stage in ready}
            waiting = [stage for stage in waiting if stage not in ready]

"""Walk the plan F0 -> F1 -> F2 in one folder tree, with kills, changed flags and second thoughts.

    python benchmarks/reliability/plan_walk.py

The plan's own commands run in a new folder, on a real autoencoder architecture with thin layers, a
small T5 and a few seconds of noise; its JSON is edited in place between the stages, as the plan
says. After each command its exit code and the words that belong to it are checked; at the end, that
what each stage left is still there. Prints a line per command; exit code 1 where one was otherwise.
"""

# ruff: noqa: E402  (the paths come first)
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from tiny_models import built, tiny_vae
from tiny_runs import make_corpus
from tiny_text_models import build_tiny_t5

from saga_sr.training.metrics_csv import read_metrics

JSON = "saga_model_config.json"
TRAIN = (
    f"train_saga_sr.py --train_dir train --val_dir val --model_config {JSON} --batch_size 2 "
    "--learning_rate 1e-5 --max_steps 12"
)
SMALL = (
    " --val_every_n_steps 4 --val_num_clips 2 --val_num_train_clips 1 --val_num_steps 2 "
    "--num_workers 1 --checkpoint_every_n_steps 2 --accelerator cpu"
)
VAE = " --pretransform_ckpt vae.ckpt"
PURE = " --disable_val_lowfreq_replace"
PRE_ENCODE = (
    f"-m saga_sr.pre_encode --audio_dir train --output_dir latents --model_config {JSON} "
    "--pretransform_ckpt vae.ckpt --num_workers 0 --accelerator cpu"
)
F0, F1, F2 = "runs/saga_sr-f0", "runs/saga_sr-f1", "runs/saga_sr-f2"
TIMEOUT_S = 300.0


class Walk:
    """The folder that is walked in, and what has been tried in it."""

    def __init__(self, root: Path) -> None:
        self.root, self.failures, self.number = root, 0, 0
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT), "SAGA_SR_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def start(self, command: str, **environment: str) -> subprocess.Popen[str]:
        words = shlex.split(command)
        if words[0] != "-m":
            words[0] = str(ROOT / words[0])
        return subprocess.Popen(
            [sys.executable, *words], cwd=self.root, env=self.environment | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def step(
        self,
        title: str,
        command: str,
        code: int = 0,
        says: tuple[str, ...] = (),
        kill: tuple[signal.Signals, Callable[[], bool]] | None = None,
        **environment: str,
    ) -> str:
        """Run a command, check how it ends, and print a line; returns its output."""
        began = time.monotonic()
        process = self.start(command, **environment)
        if kill:
            number, moment = kill
            while process.poll() is None and not moment():
                time.sleep(0.02)
            os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        problems = [f"does not say {words!r}" for words in says if words not in output]
        if process.returncode != code:
            problems.append(f"exit code {process.returncode}, not {code}")
        for unwanted in ("Traceback", "pkg_resources", "weight_norm"):
            if unwanted in output:
                problems.append(f"says {unwanted}")
        self.report(title, f"{time.monotonic() - began:.0f} s", problems, output)
        return output

    def report(self, title: str, took: str, problems: list[str], output: str = "") -> None:
        self.number += 1
        print(f"| {self.number} | {title} | {'; '.join(problems) or 'yes'} | {took} |", flush=True)
        if problems:
            self.failures += 1
            print(output[-2000:], file=sys.stderr, flush=True)

    def logged(self, run: str, steps: int) -> Callable[[], bool]:
        """Whether a run has logged so many steps, as a function."""
        path = self.root / run / "metrics.csv"
        return lambda: sum(name == "train/loss" for _, name, _ in read_metrics(path)) >= steps

    def edit(self, **changes: object) -> None:
        """Edit the JSON in place: keys of the ``diffusion`` section, or ``t5``."""
        path = self.root / JSON
        raw = json.loads(path.read_text(encoding="utf-8"))
        if "t5" in changes:
            text = raw["model"]["conditioning"]["configs"][0]["config"]
            text["t5_model_name"] = str(changes.pop("t5"))
        raw["model"]["diffusion"] |= changes
        path.write_text(json.dumps(raw), encoding="utf-8")

    def contents(self, folder: str) -> dict[str, str]:
        """Digest of each file of a run."""
        files = (p for p in (self.root / folder).rglob("*") if p.is_file() and p.name != ".lock")
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }


def prepare(root: Path) -> None:
    make_corpus(root)
    raw = tiny_vae()
    raw["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = "t5-base"
    raw["training"]["learning_rate"] = 1e-5  # as in the full model's JSON
    (root / JSON).write_text(json.dumps(raw), encoding="utf-8")
    torch.save({"state_dict": built(raw).pretransform.model.state_dict()}, root / "vae.ckpt")
    build_tiny_t5(root / "t5", dim=24)


def walk_f0(walk: Walk) -> dict[str, str]:
    f0 = TRAIN + SMALL + " --disable_caption" + PURE
    walk.step("F0 without VAE weights", f0, 2, ("--pretransform_ckpt (a VAE)",))
    walk.step("F0, --logger wandb without wandb", f"{f0}{VAE} --logger wandb", 2, ("pip install",))
    walk.step("F0, --accelerator gpu without one", f"{f0}{VAE} --accelerator gpu", 2, ("no GPU",))
    walk.step("F0, a HOME that cannot be written", f0 + VAE, 2, ("SAGA_SR_CACHE",),
              HOME="/dev/null", XDG_CACHE_HOME="", SAGA_SR_CACHE="")  # fmt: skip
    before = set(walk.root.rglob("runs/**/*"))
    walk.step("F0, a trial", f"{f0}{VAE} --fast_dev_run", 0, ("a trial",))
    left = sorted(map(str, set(walk.root.rglob("runs/**/*")) - before))
    walk.report("the trial leaves nothing", "", left)
    walk.step("F0, Ctrl-C in the first second", f0 + VAE, -signal.SIGINT,
              kill=(signal.SIGINT, _after(0.5)))  # fmt: skip
    walk.step("F0, SIGKILL after five steps", f0 + VAE, -signal.SIGKILL,
              kill=(signal.SIGKILL, walk.logged(F0, 5)))  # fmt: skip
    walk.step("F0, the same command again", f0 + VAE, 2, ("--checkpoint last", "--overwrite"))
    again = TRAIN.replace(JSON, f"{walk.root}/{JSON}").replace("--learning_rate 1e-5", "") + SMALL
    walk.step("F0 goes on: with replacement, without --disable_caption, the JSON by its full path",
              f"{again}{VAE} --checkpoint last", 0, ("validation has other rules",),
              )  # fmt: skip
    walk.step("F0 goes on with another learning rate", f"{f0}{VAE} --checkpoint last "
              "--learning_rate 1e-4", 2, ("learning_rate: 1e-05 -> 0.0001",))  # fmt: skip
    walk.step("F0 goes on for one step and ends between validations", f"{f0}{VAE} "
              "--checkpoint last --max_steps 13", 0, ("val/lsd", "step 12)"))  # fmt: skip
    return walk.contents(F0)


def walk_f1(walk: Walk) -> dict[str, str]:
    f1 = TRAIN + SMALL + PURE + f" --init_from {F0}/export"
    walk.edit(cross_attention_cond_ids=["prompt"])
    walk.step("F1 with a T5 that is not here", f1, 2, ("t5-base",), HF_HUB_OFFLINE="1")
    walk.edit(t5="t5")
    walk.step("F1, Ctrl-C after three steps", f1, 130, ("Stopped by SIGINT",),
              kill=(signal.SIGINT, walk.logged(F1, 3)))  # fmt: skip
    first = walk.start(f"{f1} --max_steps 100000 --checkpoint last")
    while first.poll() is None and not walk.logged(F1, 8)():
        time.sleep(0.05)
    walk.step("F1 goes on, while another process trains there", f"{f1} --checkpoint last", 2,
              ("another process trains there",))  # fmt: skip
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    (walk.root / "t5").rename(walk.root / "elsewhere")
    walk.edit(t5="elsewhere")
    walk.step("F1 goes on after SIGKILL, the T5 elsewhere, without --init_from, VAE given",
              f"{TRAIN}{SMALL}{PURE}{VAE} --checkpoint last --max_steps 100 "
              "--val_every_n_steps 50")  # fmt: skip
    return walk.contents(F1)


def walk_latents(walk: Walk) -> None:
    walk.step("encode without VAE weights", PRE_ENCODE.replace(VAE, ""), 2, ("worthless",))
    walk.step("encode", PRE_ENCODE)
    shards = {p: p.stat().st_mtime_ns for p in (walk.root / "latents").rglob("*.safetensors")}
    (walk.root / "train/captions.jsonl").write_text(
        '{"path": "0000.wav", "caption": "noise"}\n', encoding="utf-8"
    )
    f1 = TRAIN.replace("train_dir train", "train_dir latents") + SMALL + f" --init_from {F0}/export"
    f1 += " --output_dir runs/latents-f1"
    expected = ("5 with caption and transcript",)
    walk.step("F1 from latents, captions written after encoding", f1, 0, expected)
    walk.step("encode again into the same folder", PRE_ENCODE, 0, ("the latents stay",))
    changed = [path.name for path, time_ns in shards.items() if path.stat().st_mtime_ns != time_ns]
    walk.report("no latent is encoded again", "", changed)


def walk_f2(walk: Walk) -> None:
    f2 = TRAIN + SMALL + f" --compute_rolloff --init_from {F1}/export"
    walk.step("F2", f2 + PURE)
    walk.step("F2 anew, with replacement", f2, 2, ("holds a run already",))
    walk.step("F2 anew, with replacement and a name", f"{f2} --output_dir runs/f2-replaced")
    walk.step("F2 without guidance", f2 + " --output_dir runs/x "
              "--guidance_acoustic 1 --guidance_text 1", 0)  # fmt: skip
    runs = f"-m saga_sr.compare {F0} {F1} {F2} --output report"
    walk.step("the three side by side", runs, 0, ("3 runs",))


def _after(seconds: float) -> Callable[[], bool]:
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() > moment


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="saga-sr-plan-") as folder:
        walk = Walk(Path(folder))
        prepare(walk.root)
        print("| | what is done | ends as it should | took |\n|---|---|---|---|", flush=True)
        kept = walk_f0(walk)
        kept |= walk_f1(walk)
        walk_latents(walk)
        walk_f2(walk)
        now = walk.contents(F0) | walk.contents(F1)
        lost = [name for name, digest in kept.items() if now.get(name) != digest]
        walk.report("all files of F0 and F1 are as their stage left them", "", lost)
        print(f"\n{walk.number - walk.failures} of {walk.number} as they should be")
        return int(walk.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())

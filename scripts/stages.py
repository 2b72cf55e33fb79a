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
SHIPPED = ROOT / "models" / "saga-sr-demo"
CATEGORIES = ("music", "speech", "effects")
PIECE_SECONDS = 15  # a long held-out file is several clips
# Kind of stage -> steps; the roll-off is learnt after thousands of them.
STEPS = {"first": 4000, "middle": 1000, "last": 6500}
# At F0's rate of 1e-3 a new condition is shut out before it is understood: cross-attention learns
# to look at padding, whose values are nothing, so firmly that no gradient leads back.
RATES = {"first": (), "middle": ("--learning_rate", "3e-4"), "last": ("--learning_rate", "5e-4")}
FLAGS = (
    "--batch_size 8 --augment --precision auto --num_workers 1 "
    "--val_every_n_steps 500 --val_num_clips 12 --val_num_train_clips 0 "
    "--checkpoint_every_n_steps 250 --keep_checkpoints 2"
)
CONTROLS = ("wrong_text", "true_rolloff", "target_rolloff=0.4", "no_replacement")
SHOWN = {
    "velocity_error": "velocity error",
    "lsd": "LSD",
    "lsd_hf": "LSD-HF",
    "high_band_error_db": "band error (dB)",
    "KD offline": "KD offline",
    "KD aisfx": "KD aiSFX",
    "change_db": "change (dB)",
    "texture_db": "texture (dB)",
    "si_sdr": "SI-SDR (dB)",
}
COMPARED = (
    ("f1", "f0_longer"),
    ("f2", "f1_longer"),
    ("f2 true roll-off", "f2"),
    ("f2", "f0"),
)
BEGIN, END = "<!-- figures of scripts/stages.py -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        name: of its folder.
        start: the run whose export it starts from; None starts afresh.
        ids: ``cross_attention_cond_ids``, the plan's one JSON key.
        flags: beside those that all runs share.
        kind: of `STEPS` and `RATES`.
    """

    name: str
    start: str | None
    ids: tuple[str, ...]
    flags: tuple[str, ...] = ()
    kind: str = "middle"


STAGES = (
    Stage("f0", None, (), ("--disable_caption",), "first"),
    Stage("f1", "f0", ("prompt",)),
    Stage("f0_longer", "f0", (), ("--disable_caption",)),
    Stage("f2", "f1", ("prompt",), ("--compute_rolloff",), "last"),
    Stage("f1_longer", "f1", ("prompt",), (), "last"),
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
    command: list[str | Path] = ["train_saga_sr.py", "--train_dir"]
    command += [corpus / "train_fullband" / category for category in CATEGORIES]
    command += ["--val_dir", *(corpus / "val" / category for category in CATEGORIES)]
    command += ["--model_config", write_config(stage, options.output), *stage.flags]
    steps = getattr(options, f"{stage.kind}_steps")
    command += ["--max_steps", str(steps), *RATES[stage.kind], *shlex.split(options.flags)]
    if stage.start is not None:
        command += ["--init_from", options.output / stage.start / "export"]
    command += ["--checkpoint", "last"]  # of a run that has none, its beginning
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


# --- measuring ----------------------------------------------------------------------------------
def held_out(options: argparse.Namespace) -> Path:
    """The corpus' held-out files, long ones cut into pieces, with their texts."""
    import soundfile as sf

    from saga_sr.support.files import atomic_path, write_text_atomic

    target = options.output / "held_out"
    if (target / "captions.jsonl").is_file():
        return target
    told = []
    for category in CATEGORIES:
        source, folder = options.corpus / "val" / category, target / category
        folder.mkdir(parents=True, exist_ok=True)
        texts = (source / "captions.jsonl").read_text(encoding="utf-8").strip().split("\n")
        by_path = {line["path"]: line for line in map(json.loads, texts)}
        for path in sorted(p for p in source.iterdir() if p.name in by_path):
            audio, rate = sf.read(path, dtype="float32", always_2d=True)
            size = PIECE_SECONDS * rate
            for number in range(max(1, len(audio) // size)):
                name = f"{category}/{path.stem}--{number:03d}.wav"
                with atomic_path(target / name) as temporary:
                    piece = audio[number * size : (number + 1) * size]
                    sf.write(temporary, piece, rate, subtype="FLOAT", format="WAV")
                told.append(json.dumps({**by_path[path.name], "path": name}, ensure_ascii=False))
    write_text_atomic(target / "captions.jsonl", "\n".join(told) + "\n")  # last: all is there
    return target


def measure(options: argparse.Namespace) -> list[Path]:
    """Evaluate all runs, with controls; a report that is there is kept."""
    models = [f"{stage.name}={options.output / stage.name / 'export'}" for stage in STAGES]
    models.append(f"shipped={SHIPPED}")
    reports = []
    for cutoff_hz in options.cutoffs:
        report = options.output / f"report_{cutoff_hz:g}"
        evaluate(options, report, models, "--cutoffs", f"{cutoff_hz:g}", "--controls", *CONTROLS)
        reports.append(report)
    return reports


def evaluate(
    options: argparse.Namespace, report: Path, models: list[str], *flags: str | Path
) -> None:
    if not (report / "run.json").is_file():
        run(f"Measure into {report.name}", None, "-m", "saga_sr.evaluate",
            "--data", held_out(options), "--model", *models, *flags,
            "--num_clips", str(options.num_clips), "--clip_seconds", "2", "--mono",
            *shlex.split(options.evaluate_flags), "--num_pictures", "1", "--num_listen", "2",
            "--output", report)  # fmt: skip


# --- the page -----------------------------------------------------------------------------------
def draw_curves(output: Path, picture: Path) -> None:
    """Velocity error against all steps since F0 began, a panel per category."""
    from matplotlib.figure import Figure

    from saga_sr.support.tables import save_figure
    from saga_sr.training.metrics_csv import read_metrics

    begins: dict[str | None, int] = {None: 0}
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(CATEGORIES))
    for stage in STAGES:
        rows = read_metrics(output / stage.name / "metrics.csv")
        first = begins[stage.start]
        for axes, category in zip(panels, CATEGORIES, strict=True):
            name = f"val/{category}/velocity_error"
            points = [(first + step + 1, value) for step, metric, value in rows if metric == name]
            axes.plot(*zip(*points, strict=True), marker=".", label=stage.name)
        begins[stage.name] = first + max(step for step, _, _ in rows) + 1
    for axes, category in zip(panels, CATEGORIES, strict=True):
        axes.set_title(category)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))  # beyond 1 a run knows less than nothing
    panels[0].set_ylabel("velocity error, mean of four times")
    panels[-1].legend(fontsize=8)
    save_figure(figure, picture)


def tables(reports: list[Path]) -> Iterator[str]:
    """A table per category and cutoff, and one of what each condition is worth."""
    from saga_sr.support.tables import markdown_table

    found: dict[str, list[dict]] = {"results": [], "differences": []}
    for report in reports:
        content = json.loads((report / "run.json").read_text(encoding="utf-8"))
        for name, lines in found.items():
            lines += content[name]

    def cell(line: dict, name: str) -> str:
        value = {**line.get("means", {}), **line.get("distances", {}),
                 **line.get("differences", {})}.get(name)  # fmt: skip
        if value is None:
            return "–"
        low, high = line["intervals"].get(name) or (None, None)
        text = f"{value:.2f}"
        return text if low is None else f"{text} ({low:.2f} to {high:.2f})"

    groups = dict.fromkeys((line["category"], line["cutoff_hz"]) for line in found["results"])
    for group in groups:
        lines = [r for r in found["results"] if (r["category"], r["cutoff_hz"]) == group]
        yield f"### {group[0]}, {group[1] / 1000:g} kHz"
        rows: dict[tuple[str, ...], str] = {}  # cells -> row; of equal ones, the stages' start, one
        for line in lines:
            rows.setdefault(tuple(cell(line, name) for name in SHOWN), line["row"])
        yield markdown_table(["", *SHOWN.values()], [[row, *cells] for cells, row in rows.items()])
    yield "## What each condition is worth"
    yield (
        "Differences on the same clips; below zero: better for all but SI-SDR. An interval that "
        "holds zero shows no difference."
    )
    compared = []
    for better, worse in COMPARED:
        for line in [*found["differences"], *map(_turned_round, found["differences"])]:
            if (line["row"], line["minus"]) == (better, worse):
                where = f"{line['category']}, {line['cutoff_hz'] / 1000:g} kHz"
                cells = [cell(line, name) for name in SHOWN]
                compared.append([f"{better} less {worse}: {where}", *cells])
    yield markdown_table(["", *SHOWN.values()], compared)


def _turned_round(line: dict) -> dict:
    """The difference the other way round."""
    return {
        **line,
        "row": line["minus"],
        "minus": line["row"],
        "differences": {k: None if v is None else -v for k, v in line["differences"].items()},
        "intervals": {k: v and [-v[1], -v[0]] for k, v in line["intervals"].items()},
    }


def write_page(options: argparse.Namespace, reports: list[Path]) -> None:
    """The figures of docs/stages.md; what is said of them is written by hand around it."""
    from saga_sr.support.files import write_text_atomic

    pictures = options.page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    draw_curves(options.output, pictures / "curves.png")
    text = "\n\n".join(tables(reports)) + "\n"
    page = options.page.read_text(encoding="utf-8") if options.page.is_file() else f"{BEGIN}\n{END}"
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    write_text_atomic(options.page, f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    print(f"\nLook at {options.page}, and listen: {reports[0] / 'listen.html'}")


def main() -> None:
    summary, details = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--corpus", type=Path, default=ROOT / "corpus", help="of fetch_corpus.py, with captions")
    add("--output", type=Path, default=ROOT / "runs" / "stages")
    for kind, whose in (("first", "F0"), ("middle", "F1, F0 longer"), ("last", "F2, F1 longer")):
        add(f"--{kind}_steps", type=int, default=STEPS[kind], help=f"of {whose} (%(default)s)")
    add("--jobs", type=int, default=1, help="runs at once (%(default)s)")
    add("--num_clips", type=int, default=24, help="held-out clips per category (%(default)s)")
    add("--cutoffs", type=float, nargs="+", default=[4000.0, 8000.0], metavar="HZ")
    add("--flags", default=FLAGS, help="of every training (%(default)s)")
    add("--evaluate_flags", default="--precision auto", help="(%(default)s)")
    add("--page", type=Path, default=ROOT / "docs" / "stages.md", help="(docs/stages.md)")
    options = parser.parse_args()
    options.corpus, options.output = options.corpus.resolve(), options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    run("Fetch the corpus and its texts", None, "scripts/fetch_corpus.py", "--output",
        options.corpus, "--sets", "foxdot", "debian", "games", "drums", "scores")  # fmt: skip
    train_all(options)
    write_page(options, measure(options))


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

"""Everything that only a GPU can prove, in at most ten minutes: `make gpu-check`.

    python benchmarks/gpu/check.py                        # writes docs/gpu/NAME-OF-CARD.md
    python benchmarks/gpu/check.py --rehearse DIR         # every line on the CPU, with tiny sizes
    python benchmarks/gpu/check.py --only step compiled   # some sections

docs/gpu/README.md says what is measured, against what targets, and what to carry to a machine
without a network. Every section runs in a process of its own (a fork of this one, which has
imported everything and computed nothing), with a budget of seconds. One that fails, hangs or dies
is written down with its reason, and the next begins.

Exit code 0: all of it ran, and what must agree agrees (a speed may still miss its target); 1: a
section failed, or results differ; 2: there is no CUDA GPU.
"""

import argparse
import datetime
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / folder) for folder in (".", "tests", "benchmarks/speed", "benchmarks/reliability")
]

# ruff: noqa: E402  (the path comes first)
from saga_sr.support.environment import describe_environment
from saga_sr.support.errors import UserError, first_line, run_cli
from saga_sr.support.files import write_text_atomic
from saga_sr.training.early import GPU_DEVICES

if TYPE_CHECKING:
    from benchmarks.gpu.machine import Facts, Machine
    from benchmarks.gpu.report import Report
    from benchmarks.gpu.sections import Section, Sizes

TOTAL_S = 590.0
PATIENCE = 10.0  # a rehearsal has a core that others use as well
LEAST_S = 5.0  # less is not worth beginning a section
NO_GPU = (
    "gpu-check: this machine has no CUDA GPU that torch can use ({why}). A rehearsal on the CPU: "
    "python benchmarks/gpu/check.py --rehearse DIR"
)


# --- a function in a process of its own -----------------------------------------------------------
@dataclass
class Outcome:
    """Attributes:
    value: what the function returned; None where it failed.
    error: why it failed, in a line; empty where it did not.
    trace: where, for the page.
    seconds: on the clock.
    """

    value: Any = None
    error: str = ""
    trace: str = ""
    seconds: float = 0.0


def in_process(function: Callable[[], Any], budget_s: float) -> Outcome:
    """Call ``function`` in a fork; however it ends, this process goes on, and none is left over."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_call, args=(function, theirs))
    began = time.monotonic()
    process.start()
    theirs.close()
    outcome = Outcome(error=f"not done after its {budget_s:.0f} s")
    if ours.poll(budget_s):
        try:
            outcome = ours.recv()
        except EOFError:
            process.join()
            outcome = Outcome(error=f"its process ended with exit code {process.exitcode}")
    try:
        os.killpg(process.pid, signal.SIGKILL)  # with what it has started
    except ProcessLookupError:
        process.kill()
    process.join()
    outcome.seconds = time.monotonic() - began
    return outcome


def _call(function: Callable[[], Any], answer: Connection) -> None:
    os.setsid()
    try:
        answer.send(Outcome(function()))
    except BaseException as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        answer.send(Outcome(error=reason, trace=traceback.format_exc(limit=-6)))


# --- the page -------------------------------------------------------------------------------------
@dataclass
class Page:
    """What is known so far; written after every section."""

    path: Path
    machine: "Machine"
    rehearsed: bool
    command: str
    done: list[tuple["Section", Outcome]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def is_proved(self) -> bool:
        """Whether everything ran, and what must agree agrees."""
        reports = [outcome.value for _, outcome in self.done]
        return all(
            report is not None and all(one.verdict != "WRONG" for one in report.findings)
            for report in reports
        )

    def write(self) -> None:
        write_text_atomic(self.path, self.text())

    def text(self) -> str:
        from benchmarks.gpu.report import Finding
        from saga_sr.support.tables import markdown_table

        facts, environment = self.machine.facts, describe_environment()
        packages = ", ".join(f"{name} {v or '-'}" for name, v in environment["packages"].items())
        git = environment["git"]
        commit = git.get("commit", "unknown")[:12] + " with changes" * git.get(
            "uncommitted_changes", False
        )
        now = datetime.datetime.now(datetime.UTC)
        parts = [
            f"# {facts.name}",
            f"`{self.command}`, {now:%Y-%m-%d %H:%M} UTC, {time.monotonic() - self.began:.0f} s. "
            f"[What is measured and why](README.md).",
            f"{facts.details}. Python {environment['python']}, {environment['platform']}. "
            f"{packages}. Commit {commit}.",
        ]
        if self.rehearsed:
            parts += [
                "**A rehearsal: no figure here is one of a GPU.** It could not run:",
                "\n".join(f"- {what}" for what in self.machine.cannot),
            ]
        rows = []
        for section, outcome in self.done:
            failed = [Finding("the whole section", outcome.error, "", "FAILED")]
            for one in outcome.value.findings if outcome.value else failed:
                rows.append([section.title, one.what, one.measured, one.target, one.verdict])
        parts.append(markdown_table(("section", "what", "measured", "target", "verdict"), rows))
        for section, outcome in self.done:
            parts.append(f"## {section.title}")
            if outcome.value is None:
                parts.append(f"**Failed** after {outcome.seconds:.0f} s: {outcome.error}")
                if outcome.trace:
                    trace = outcome.trace.replace(str(ROOT), ".").strip()
                    parts.append(f"```\n{trace}\n```")
                continue
            parts += [*outcome.value.text, f"({outcome.seconds:.0f} s)"]
        return "\n\n".join(parts) + "\n"


def page_name(card: str) -> str:
    """Of the file: nvidia-h100-80gb-hbm3.md"""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") + ".md"


def run_sections(page: Page, sections: Sequence["Section"], sizes: "Sizes", scale: float) -> None:
    """Run ``sections`` one after the other and keep the page; ``scale`` times their budgets, and
    `TOTAL_S` together."""
    from benchmarks.gpu.report import Report

    for section in sections:
        left_s = scale * TOTAL_S - (time.monotonic() - page.began)

        def report(section: "Section" = section) -> "Report":
            found = Report(page.rehearsed)
            section.run(page.machine, sizes, found)
            return found

        print(f"{section.title} ...", flush=True)
        outcome = Outcome(error="not begun: the ten minutes are over")
        if left_s > LEAST_S:
            outcome = in_process(report, min(scale * section.budget_s, left_s))
        page.done.append((section, outcome))
        page.write()
        for line in outcome.value.findings if outcome.value else ():
            print(f"  {line.verdict:9s} {line.what}: {line.measured}  ({line.target})")
        print(f"  {outcome.error or 'done'}, {outcome.seconds:.0f} s", flush=True)


# --- the program ----------------------------------------------------------------------------------
def refuse_without_gpu() -> None:
    """Before torch is imported.

    Raises:
        UserError: no driver of a GPU is there.
    """
    if not any(Path("/dev", name).exists() for name in GPU_DEVICES):
        raise UserError(NO_GPU.format(why="no driver's device in /dev"))


def look(machine: type["Machine"]) -> "Facts":
    """What card there is.

    Raises:
        UserError: torch finds none.
    """
    found = in_process(machine.look, 60.0)
    if found.value is None:
        raise UserError(NO_GPU.format(why=found.error))
    return found.value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output_dir", type=Path, default=ROOT / "docs" / "gpu", metavar="DIR",
        help="where the card's page goes (docs/gpu)")  # fmt: skip
    parser.add_argument("--rehearse", type=Path, metavar="DIR",
        help="run every line on the CPU with tiny sizes and write the page to DIR")  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="names of sections to run")
    return parser


def main() -> int:
    options = build_parser().parse_args()
    if options.rehearse is None:
        refuse_without_gpu()
    began = time.monotonic()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Else libraries that ask for a GPU while they are imported begin CUDA, and no fork could.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if options.rehearse is not None:
        os.environ["OMP_NUM_THREADS"] = "1"
    from benchmarks.gpu import machine, sections
    from saga_sr.training.assemble import quiet_lightning

    quiet_lightning()
    names = [section.run.__name__ for section in sections.SECTIONS]
    if unknown := set(options.only or ()) - set(names):
        raise UserError(f"--only {' '.join(unknown)}: no such section; allowed: {', '.join(names)}")
    chosen = [s for s in sections.SECTIONS if s.run.__name__ in (options.only or names)]
    kind = machine.Machine if options.rehearse is None else machine.Rehearsal
    facts = look(kind)
    folder = options.output_dir if options.rehearse is None else options.rehearse
    command, name = "make gpu-check", page_name(facts.name)
    if options.only:  # never in the place of a whole page
        command, name = f"gpu-check --only {' '.join(options.only)}", f"part-of-{name}"
    page = Page(folder / name, kind(facts), options.rehearse is not None, command, began=began)
    sizes, scale = (sections.REAL, 1.0) if options.rehearse is None else (sections.TINY, PATIENCE)
    run_sections(page, chosen, sizes, scale)
    print(f"\n{page.path}")
    return 0 if page.is_proved else 1


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

"""The project's commands in forks of a process that has imported them: their start-up is known."""

import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from forks import run_and_exit, train, write_to

from saga_sr.evaluate.__main__ import parse_args as evaluate_flags
from saga_sr.evaluate.evaluation import main as evaluate_main
from saga_sr.upsample.__main__ import parse_args as upsample_flags
from saga_sr.upsample.command import main as upsample_main

ROOT = Path(__file__).resolve().parents[2]
DEMO_MODEL = ROOT / "models" / "saga-sr-demo"


def upsample(argv: list[str]) -> int:
    """``python -m saga_sr.upsample`` with these flags."""
    return upsample_main(upsample_flags(argv))


def evaluate(argv: list[str]) -> None:
    """``python -m saga_sr.evaluate`` with these flags."""
    evaluate_main(evaluate_flags(argv))


PROGRAMS: dict[str, tuple[str, Callable[[list[str]], int | None]]] = {
    "train": ("train_saga_sr.py", train),
    "upsample": ("-m saga_sr.upsample", upsample),
    "evaluate": ("-m saga_sr.evaluate", evaluate),
}


def run_commands(lines: Sequence[Sequence[str | Path]], root: Path) -> str:
    """Run commands, a key of `PROGRAMS` and its flags each, one after the other.

    Returns:
        The commands as Markdown, with the seconds they took; ``root`` is called DIR.

    Raises:
        RuntimeError: one of them failed; with its last words.
    """
    said = []
    for number, (program, *flags) in enumerate(lines):
        argv, log = [str(flag) for flag in flags], root / f"{number}.log"
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            write_to(log)
            run_and_exit(PROGRAMS[program][1], argv)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{program}: exit code {code}: {' '.join(words)}")
        line = f"python {PROGRAMS[program][0]} {shlex.join(argv)}"
        line = line.replace(str(root), "DIR").replace(f"{ROOT}/", "")
        said.append(f"{line}   # {time.monotonic() - began:.1f} s")
    return "```bash\n" + "\n".join(said) + "\n```"

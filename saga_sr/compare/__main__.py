"""Training runs side by side: curves in one picture, results in one table.

    python -m saga_sr.compare runs/F0 runs/F1 runs/F2 --output comparison

reads ``metrics.csv``, ``options.json`` and ``config.json`` of each run folder and writes
comparison.md and curves.png. Two curves can only be compared where both runs were validated by the
same rule. Where they were not, every difference is listed, and whether the ``_common`` metrics
(default target roll-off, replacement at the low-pass's own cutoff) are still comparable.
"""

import argparse
from pathlib import Path

from saga_sr.support.errors import UserError, run_cli
from saga_sr.support.naming import named_folders


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.compare", description="Training runs side by side."
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="[NAME=]RUN", help="output folders of train_saga_sr.py")
    add("--output", type=Path, required=True, metavar="DIR")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags, without torch; ``runs`` becomes (name, folder) pairs.

    Raises:
        UserError: lists folders that are not there, and names that are given twice.
    """
    flags = build_parser().parse_args(argv)
    flags.runs = named_folders(flags.runs, "RUN")
    problems = [
        f"{folder}: no such folder" for _, folder in flags.runs if not Path(folder).is_dir()
    ]
    if problems:
        raise UserError.listing("the runs cannot be compared", problems)
    return flags


def run() -> int:
    """Compare as the flags say."""
    flags = parse_args()
    from saga_sr.compare.runs import main

    main(flags)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(run))

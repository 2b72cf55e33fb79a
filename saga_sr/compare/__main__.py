"""Training runs side by side: curves in one picture, results in one table.

    python -m saga_sr.compare runs/F0 runs/F1 runs/F2 --output comparison

reads ``metrics.csv``, ``options.json``, ``config.json`` and ``samples`` of each run folder and
writes comparison.md, curves.png and listen.html (every run's fixed clips side by side, for a blind
test too; docs/listening.md). Two curves can only be compared where both runs were validated by the
same rule. Where they were not, every difference is listed, and whether the ``_common`` metrics
(default target roll-off, replacement up to the low-pass's passband) are still comparable.

    python -m saga_sr.compare --ratings ratings-*.csv

turns what listeners saved in listen.html into a table per system and category.
"""

import argparse
from pathlib import Path

from saga_sr.support.errors import UserError, run_cli
from saga_sr.support.naming import named_folders

COMPARISON, RATINGS = "comparison.md", "ratings.md"
RESERVED = ("input", "truth", "anchor")  # other rows of listen.html


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.compare", description="Training runs side by side."
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="[NAME=]RUN", help="output folders of train_saga_sr.py")
    add("--output", type=Path, metavar="DIR", help="needed for runs; gets ratings.md, too")
    add("--overwrite", action="store_true", help="replace a comparison that is there")
    add("--ratings", nargs="+", type=Path, metavar="CSV", help="saved by listen.html")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags, without torch; ``runs`` becomes (name, folder) pairs.

    Raises:
        UserError: lists folders that are not there, names that are given twice, and what is
            missing or too much.
    """
    flags = build_parser().parse_args(argv)
    flags.runs = named_folders(flags.runs, "RUN")
    problems = [
        f"{folder}: no such folder" for _, folder in flags.runs if not Path(folder).is_dir()
    ]
    problems += [
        f"{name}: a run cannot be called so on the listening page; name it: NAME={folder}"
        for name, folder in flags.runs
        if name in RESERVED
    ]
    if flags.ratings and flags.runs:
        problems.append("--ratings: give either runs or ratings")
    elif not flags.ratings and not flags.runs:
        problems.append("give runs of train_saga_sr.py, or --ratings")
    elif flags.runs and flags.output is None:
        problems.append("--output DIR is missing")
    if flags.output is not None and not flags.overwrite:
        written = flags.output / (RATINGS if flags.ratings else COMPARISON)
        if written.exists():
            problems.append(
                f"--output {flags.output}: {written.name} is there; --overwrite replaces it"
            )
    if problems:
        raise UserError.listing("the runs cannot be compared", problems)
    return flags


def run() -> int:
    """Compare as the flags say."""
    flags = parse_args()
    if flags.ratings:
        _print_ratings(flags.ratings, flags.output)
        return 0
    from saga_sr.compare.runs import main

    main(flags)
    return 0


def _print_ratings(paths: list[Path], output: Path | None) -> None:
    from saga_sr.listen.ratings import read_ratings, report
    from saga_sr.support.files import write_text_atomic

    text = report(*read_ratings(paths))
    print(text)
    if output is not None:
        write_text_atomic(output / RATINGS, text)


if __name__ == "__main__":
    raise SystemExit(run_cli(run))

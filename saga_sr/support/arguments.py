"""Types of flags: what argparse calls to read a value, with an error that says what is allowed; and
flags that several commands have."""

import argparse
from collections.abc import Iterator
from typing import Any

from saga_sr.support.choices import DEGRADATION_KINDS


def positive_int(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def natural_number(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0")
    return value


def positive_float(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def finite_float(text: str) -> float:
    if not abs(value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be a finite number")
    return value


def fraction(text: str) -> float:
    if not 0 <= (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0 and below 1")
    return value


def add_degradations(group: Any) -> None:
    """The flag ``--degradations`` of what makes LR clips, for a parser or a group of one."""
    group.add_argument(
        "--degradations", nargs="+", choices=DEGRADATION_KINDS, default=["lowpass"], metavar="KIND",
        help="what makes the low-resolution clips: lowpass (the paper, alone by default), codec, "
        "resampler; residue adds dither, noise and tones; shares: the JSON's "
        "training.degradations",
    )  # fmt: skip


def problems_of_degradations(kinds: list[str]) -> Iterator[str]:
    if set(kinds) == {"residue"}:
        yield "--degradations residue: it is added to something; name lowpass, codec or resampler"
    if len(set(kinds)) < len(kinds):
        yield f"--degradations {' '.join(kinds)}: one is named twice"

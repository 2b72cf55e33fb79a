"""Inputs that once ended in a traceback; `benchmarks/fuzz.py` found them.

Each file is read by the fuzz program's own reader of its kind, which raises what it finds wrong.
"""

import sys
from pathlib import Path

import pytest
from tiny_models import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import fuzz

FINDINGS = Path(__file__).parent / "findings"


@pytest.mark.parametrize(("name", "outcome"), [("length_goes_negative.mp3", "named unusable")])
def test_audio_that_was_a_finding_is_named(name: str, outcome: str, tmp_path: Path) -> None:
    assert fuzz.audio_kind(tmp_path).read(FINDINGS / name) == outcome


@pytest.mark.parametrize("kind", ["hostile", "paths", "latents", "checkpoint"])
def test_some_inputs_of_the_fuzz_program_are_no_findings(kind: str, tmp_path: Path) -> None:
    """A few of each kind that is about safety; the program itself takes thousands."""
    made = fuzz.KINDS[kind][0](tmp_path)
    for number in range(12):
        outcome = fuzz.read_one(made, number, 0, tmp_path / "input")
        assert "FINDING" not in outcome, outcome

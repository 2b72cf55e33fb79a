"""Inputs that once ended in a traceback; `benchmarks/reliability/fuzz.py` found them.

Each file is read by the fuzz program's own reader of its kind, which raises what it finds wrong.
"""

import sys
from pathlib import Path

import pytest
from tiny_models import ROOT, shipped

from saga_sr.config import parse_model_config
from saga_sr.support.errors import UserError
from saga_sr.training.checkpoints import is_whole

sys.path.append(str(ROOT / "benchmarks" / "reliability"))
import fuzz

FINDINGS = Path(__file__).parent / "findings"


@pytest.mark.parametrize(("name", "outcome"), [("length_goes_negative.mp3", "accepted")])
def test_audio_that_was_a_finding_is_read_or_named(name: str, outcome: str, tmp_path: Path) -> None:
    assert fuzz.audio_kind(tmp_path).read(FINDINGS / name) == outcome


@pytest.mark.parametrize("name", ["zip_version.ckpt", "zip_name.ckpt", "zip_flag.ckpt"])
def test_checkpoint_that_was_a_finding_is_not_whole(name: str) -> None:
    """Python's zipfile answers with NotImplementedError and UnicodeDecodeError."""
    assert not is_whole(FINDINGS / name)


@pytest.mark.parametrize(
    "path",
    ["model.pretransform.config.encoder.config.channels", "model.diffusion.config.depth"],
)
def test_config_of_a_model_that_nothing_could_build_is_refused(path: str) -> None:
    raw = shipped("saga_model_config_small.json")
    *parents, key = path.split(".")
    section = raw
    for parent in parents:
        section = section[parent]
    section[key] = 2**63
    with pytest.raises(UserError, match=path):
        parse_model_config(raw)


@pytest.mark.parametrize("kind", ["hostile", "paths", "latents", "checkpoint"])
def test_some_inputs_of_the_fuzz_program_are_no_findings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few of each kind that is about safety; the program itself takes thousands."""
    monkeypatch.setattr("saga_sr.audio.file.RETRY_DELAY_S", 0.0)
    made = fuzz.KINDS[kind][0](tmp_path)
    for number in range(12):
        outcome = fuzz.read_one(made, number, 0, tmp_path / "input")
        assert "FINDING" not in outcome, outcome

"""The listening page of runs: who validated the same clip stands side by side."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from saga_sr.compare.samples import METRICS, add_runs
from saga_sr.listen.page import ListeningPage
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.support.errors import UserError

RATE = 44100
CUTOFF_HZ = 4000.0


def write_samples(
    run: Path, step: int, seeds: list[int], gain: float = 1.0, is_known: bool = True
) -> Path:
    """What a run's validation leaves: a clip of noise per seed, the prediction ``gain`` x truth."""
    folder = run / "samples" / f"step={step:08d}"
    folder.mkdir(parents=True)
    for number, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        hr = 0.1 * torch.randn(2, 8192, generator=generator)
        lr = apply_lowpass(hr, RATE, field_lowpass(CUTOFF_HZ))
        for label, audio in {"HR": hr, "LR": lr, "prediction": gain * hr}.items():
            path = folder / f"val-{number:02d}-{label}.wav"
            soundfile.write(path, audio.T.numpy(), RATE, subtype="FLOAT")
        if is_known:
            known = {"name": f"noise {seed}", "category": "effects", "text": "雨",
                     "cutoff_hz": CUTOFF_HZ}  # fmt: skip
            path = folder / f"val-{number:02d}.json"
            path.write_text(json.dumps(known), encoding="utf-8")
    return run


def page_of(output: Path, runs: dict[str, Path]) -> tuple[dict[str, Any], list[str]]:
    page = ListeningPage(output, "runs", METRICS)
    notes = add_runs(page, [(name, folder, CUTOFF_HZ) for name, folder in runs.items()])
    text = page.write((), notes).read_text(encoding="utf-8")
    found = re.search(r'(?s)<script type="application/json" id="page">(.*?)</script>', text)
    assert found
    return json.loads(found[1]), notes


def test_runs_of_one_clip_stand_side_by_side_with_their_own_metrics(tmp_path: Path) -> None:
    runs = {
        "F0": write_samples(tmp_path / "F0", 10, [1, 2], gain=0.5),
        "F1": write_samples(tmp_path / "F1", 10, [1, 2], gain=1.0),
    }
    data, notes = page_of(tmp_path / "out", runs)
    assert notes == []
    assert [clip["name"] for clip in data["clips"]] == ["noise 1 (val-00)", "noise 2 (val-01)"]
    clip = data["clips"][0]
    assert (clip["category"], clip["text"], clip["cutoff_hz"]) == ("effects", "雨", CUTOFF_HZ)
    by_name = {one["name"]: one for one in clip["versions"]}
    assert list(by_name) == ["input", "F0", "F1", "truth", "anchor"]
    assert by_name["F1"]["metrics"]["lsd"] == pytest.approx(0, abs=1e-3)
    assert by_name["F0"]["metrics"]["lsd"] == pytest.approx(2 * np.log10(2), abs=0.01)
    assert by_name["F0"]["offset_db"] == pytest.approx(-6.02, abs=0.1)
    assert by_name["input"]["metrics"]["lsd_hf"] > 1


def test_the_newest_validation_is_heard_and_unlike_steps_are_said(tmp_path: Path) -> None:
    first = write_samples(tmp_path / "F0", 10, [1], gain=0.25)
    write_samples(tmp_path / "F0", 900, [1], gain=1.0)
    second = write_samples(tmp_path / "F1", 10, [1])
    data, notes = page_of(tmp_path / "out", {"F0": first, "F1": second})
    assert notes == ["Steps: F0 900, F1 10"]
    by_name = {one["name"]: one for one in data["clips"][0]["versions"]}
    assert by_name["F0"]["metrics"]["lsd"] == pytest.approx(0, abs=1e-3)


def test_runs_that_validated_other_files_are_not_mixed(tmp_path: Path) -> None:
    runs = {
        "F0": write_samples(tmp_path / "F0", 10, [1, 2]),
        "F1": write_samples(tmp_path / "F1", 10, [1, 3]),
    }
    data, notes = page_of(tmp_path / "out", runs)
    systems = [
        [one["name"] for one in clip["versions"] if one["name"] in runs] for clip in data["clips"]
    ]
    assert systems == [["F0", "F1"], ["F0"], ["F1"]]
    assert notes[0].startswith("2 of 3 clips were not validated by every run")


def test_runs_of_an_earlier_version_have_the_cutoff_of_their_flags(tmp_path: Path) -> None:
    run = write_samples(tmp_path / "F0", 10, [1], is_known=False)
    data, _ = page_of(tmp_path / "out", {"F0": run})
    clip = data["clips"][0]
    assert (clip["name"], clip["category"], clip["cutoff_hz"]) == ("val-00", "val", CUTOFF_HZ)


def test_a_run_without_samples_is_said_and_the_page_still_written(tmp_path: Path) -> None:
    (tmp_path / "F0").mkdir()
    data, notes = page_of(tmp_path / "out", {"F0": tmp_path / "F0"})
    assert data["clips"] == []
    assert notes[0].startswith("F0: no samples of a validation in ")


@pytest.mark.parametrize(("name", "reason"), [("val-00-LR.wav", "cannot be read"),
                                              ("val-00.json", "not a JSON object")])  # fmt: skip
def test_a_broken_file_is_named(tmp_path: Path, name: str, reason: str) -> None:
    run = write_samples(tmp_path / "F0", 10, [1])
    broken = run / "samples/step=00000010" / name
    broken.write_text("[", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{broken}: {reason}")):
        page_of(tmp_path / "out", {"F0": run})

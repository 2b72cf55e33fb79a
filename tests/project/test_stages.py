"""`make stages`: one key of the JSON, a fair companion for every condition, held-out pieces."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import stages

RATE = 8000


def test_every_condition_has_a_companion_that_went_on_without_it() -> None:
    by_name = {stage.name: stage for stage in stages.STAGES}
    for later, companion in stages.COMPARED[:2]:
        with_it, without = by_name[later], by_name[companion]
        assert (with_it.start, with_it.kind) == (without.start, without.kind)  # weights, steps
        start = by_name[str(with_it.start)]
        assert (without.ids, without.flags) == (start.ids, start.flags)
        assert (with_it.ids, with_it.flags) != (start.ids, start.flags)


def test_a_stage_changes_one_key_of_the_config(tmp_path: Path) -> None:
    shipped = json.loads(stages.CONFIG.read_text(encoding="utf-8"))
    for stage in stages.STAGES:
        config = json.loads(stages.write_config(stage, tmp_path).read_text(encoding="utf-8"))
        assert config["model"]["diffusion"].pop("cross_attention_cond_ids") == list(stage.ids)
        shipped["model"]["diffusion"].pop("cross_attention_cond_ids", None)
        assert config == shipped


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    """A corpus with a long file and a short one in each category."""
    for category in stages.CATEGORIES:
        folder = tmp_path / "corpus" / "val" / category
        folder.mkdir(parents=True)
        lines = []
        for name, seconds in (("long.wav", 40), ("short.wav", 1)):
            sf.write(folder / name, np.zeros(seconds * RATE, dtype=np.float32), RATE)
            lines.append(json.dumps({"path": name, "start": 0.0, "caption": f"{category}: {name}"}))
        (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return argparse.Namespace(corpus=tmp_path / "corpus", output=tmp_path / "runs")


def test_held_out_files_are_cut_into_pieces_that_keep_their_texts(
    options: argparse.Namespace,
) -> None:
    folder = stages.held_out(options)
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {line["path"]: line["caption"] for line in map(json.loads, lines)}
    assert sorted(texts) == sorted(
        str(path.relative_to(folder).as_posix()) for path in folder.rglob("*.wav")
    )
    assert texts["speech/long--001.wav"] == "speech: long.wav"
    seconds = [
        sf.info(folder / f"music/{name}.wav").duration for name in ("long--001", "short--000")
    ]
    assert seconds == [stages.PIECE_SECONDS, 1]
    before = (folder / "captions.jsonl").stat().st_mtime_ns
    assert stages.held_out(options) == folder  # a second time nothing is cut
    assert (folder / "captions.jsonl").stat().st_mtime_ns == before


def test_tables_show_values_with_their_intervals(tmp_path: Path) -> None:
    where = {"category": "music", "cutoff_hz": 4000.0}
    report = {
        "results": [
            {**where, "row": "f1", "means": {"lsd": 1.25}, "distances": {"KD offline": 2.0},
             "intervals": {"lsd": [1.0, 1.5], "KD offline": None}}
        ],
        "differences": [
            {**where, "row": "f0_longer", "minus": "f1", "differences": {"lsd": 0.125},
             "intervals": {"lsd": [0.0, 0.25]}}
        ],
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(report), encoding="utf-8")
    text = "\n".join(stages.tables([tmp_path]))
    assert "### music, 4 kHz" in text
    for cell in ("1.25 (1.00 to 1.50)", "| 2.00 |", "f1 less f0_longer: music, 4 kHz |"):
        assert cell in text
    assert "-0.12 (-0.25 to -0.00)" in text

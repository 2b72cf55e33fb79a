"""Whether clips come from where a model was trained is said, by manifest or by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from saga_sr.evaluate.sources import card_sources, shared_sources, write_sources
from saga_sr.support.errors import UserError

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models/saga-sr-demo"


def _entry(*files: str) -> dict[str, Any]:
    records = [
        {"file": f, "split": f.split("/")[0], "full_band": "dull" not in f, "seconds": 1800}
        for f in files
    ]
    return {"licence": "CC0", "files": records}


MANIFEST = {
    "bells-data": _entry("train/music/bells_a.ogg", "train/music/bells_dull.ogg"),
    "bells-extra": _entry("train/music/bells_extra_a.ogg", "val/music/bells_extra_b.ogg"),
    "horns": _entry("val/music/horns_a.ogg"),
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus/val").mkdir(parents=True)
    (tmp_path / "corpus/manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    return tmp_path / "corpus"


def test_the_card_lists_what_was_trained_on_and_not_what_was_only_validated(tmp_path: Path) -> None:
    written = json.loads(write_sources(MANIFEST, tmp_path, full_band=True).read_text("utf-8"))
    assert {name: (one["prefix"], one["hours"]) for name, one in written.items()} == {
        "bells-data": ("bells_", 0.5),
        "bells-extra": ("bells_extra_", 0.5),
    }
    assert card_sources(tmp_path) == {"bells-data": "bells_", "bells-extra": "bells_extra_"}


def test_the_manifest_decides_and_without_it_the_longest_name(corpus: Path, tmp_path: Path) -> None:
    write_sources(MANIFEST, tmp_path, full_band=True)
    files = ["music/bells_extra_b.ogg", "music/horns_a.ogg", "music/own.wav"]
    by_manifest = shared_sources("m", tmp_path, corpus / "val", files)
    assert by_manifest.clips == {"bells-extra": 1}
    by_name = shared_sources("m", tmp_path, tmp_path / "elsewhere", [*files, "bells_c.ogg"])
    assert by_name.clips == {"bells-extra": 1, "bells-data": 1}
    assert "2 of 4 clips are from sources that m was trained on: bells-extra (1)" in str(by_name)
    renamed = {"horns": _entry("val/music/bells_z.ogg")}  # whatever the name says
    (corpus / "manifest.json").write_text(json.dumps(renamed), encoding="utf-8")
    other = shared_sources("m", tmp_path, corpus / "val", ["music/bells_z.ogg"])
    assert other.clips == {}
    assert "No clip is from a source that m was trained on" in str(other)


def test_a_card_without_sources_is_said_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    unknown = shared_sources("m", tmp_path, tmp_path, ["a.wav"])
    assert unknown.clips is None
    assert "What m was trained on is not known" in str(unknown)
    (tmp_path / "sources.json").write_text('{"bells": "CC0"}', encoding="utf-8")
    with pytest.raises(UserError, match="not a list of sources"):
        card_sources(tmp_path)


def test_the_shipped_model_lists_the_packages_of_its_card() -> None:
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    sources = json.loads((SHIPPED / "sources.json").read_text(encoding="utf-8"))
    for package in sources:
        assert package.rsplit("-", 1)[0] in card
    assert sum(one["hours"] for one in sources.values()) == pytest.approx(19.6, abs=0.1)
    found = shared_sources("demo", SHIPPED, ROOT, ["val/speech/klettres_fr_alpha_a-2.ogg"])
    assert found.clips == {"klettres-data": 1}

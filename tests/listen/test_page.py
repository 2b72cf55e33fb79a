"""What the listening page is made of: audio that is the audio, levels that are level, one scale."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny_page import LOUDER_DB, METRICS, RATE, clip, tone, versions, write_page

from saga_sr.audio.spectrogram import RANGE_DB, spectrogram_db
from saga_sr.listen import page
from saga_sr.listen.page import ListeningPage, Version


def data_of(path: Path) -> dict[str, Any]:
    found = page._DATA.search(path.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def payload_of(folder: Path, described: dict[str, Any]) -> list[dict[str, str]]:
    """What a clip's script hands to the page."""
    text = (folder / described["script"]).read_text(encoding="utf-8")
    call = re.fullmatch(r"sagaListen\.arrived\((\".*?\"), (\[.*\])\);\n", text)
    assert call
    assert json.loads(call[1]) == described["id"]
    return json.loads(call[2])


def test_the_page_and_the_files_beside_it_hold_the_audio_of_every_version(tmp_path: Path) -> None:
    data = data_of(write_page(tmp_path))
    first = data["clips"][0]
    expected = {one.name: one.audio for one in versions()}
    for described, stored in zip(first["versions"], payload_of(tmp_path, first), strict=True):
        beside = (tmp_path / described["file"]).read_bytes()
        assert base64.b64decode(stored["audio"]) == beside
        samples, rate = soundfile.read(io.BytesIO(beside), always_2d=True)
        assert rate == RATE
        if described["name"] in expected:
            truth = expected[described["name"]].T.numpy()
            assert np.abs(samples - truth).max() <= 2**-15
    assert [s["role"] for s in data["systems"]] == [
        "truth", "input", "baseline", "system", "system", "anchor",
    ]  # fmt: skip
    assert set(data["files"]) == {
        p.relative_to(tmp_path).as_posix() for p in (tmp_path / "listen").rglob("*.*")
    }


def test_versions_are_played_at_the_level_of_the_kept_band(tmp_path: Path) -> None:
    first = data_of(write_page(tmp_path))["clips"][0]
    by_name = {one["name"]: one for one in first["versions"]}
    assert by_name["F1"]["offset_db"] == pytest.approx(LOUDER_DB, abs=0.05)
    assert by_name["F1"]["gain_db"] - by_name["F0"]["gain_db"] == pytest.approx(
        -LOUDER_DB, abs=0.05
    )
    assert by_name["F0"]["offset_db"] == pytest.approx(0, abs=0.05)


def test_no_version_is_clipped_neither_in_its_file_nor_when_played() -> None:
    loud, quiet = 1.7 * tone(441.0), 0.02 * tone(441.0) + 0.9 * tone(9000.0)
    one = clip("a", "b")
    levels = page.Levels.of(one, 0.5 * tone(441.0), [loud, quiet])
    assert levels.scale * 1.7 < 1
    peaks = [float(audio.abs().max()) for audio in (loud, quiet)]
    for peak, gain_db in zip(peaks, levels.gains_db, strict=True):
        assert peak * levels.scale * 10 ** (gain_db / 20) <= 1 + 1e-6
    difference = levels.gains_db[1] - levels.gains_db[0]
    assert difference == pytest.approx(20 * np.log10(1.7 / 0.02), abs=0.05)


def test_quiet_clips_have_more_bits_and_silence_keeps_its_level() -> None:
    one = clip("a", "b")
    assert page.Levels.of(one, 0.01 * tone(441.0), [0.01 * tone(441.0)]).bits == 24
    silent = page.Levels.of(one, torch.zeros(1, 4410), [torch.zeros(1, 4410)])
    assert (silent.offsets_db, silent.gains_db, silent.scale) == ([0.0], [0.0], 1.0)


def test_spectrograms_share_one_scale_and_low_is_at_the_bottom() -> None:
    audio = [0.5 * tone(2000.0), 0.005 * tone(2000.0)]
    pictures = [np.asarray(Image.open(io.BytesIO(one))) for one in page.draw(audio)]
    middle = pictures[0].shape[1] // 2
    columns = [picture[:, middle].astype(int) for picture in pictures]
    rows = pictures[0].shape[0]
    assert columns[0].argmax() == pytest.approx(rows * (1 - 2000 / (RATE / 2)), abs=2)
    per_db = (page.COLOURS - 1) / RANGE_DB
    assert columns[0].max() - columns[1].max() == pytest.approx(40 * per_db, abs=1.5)


def test_the_anchor_is_the_truth_at_3500_hz_or_at_the_lower_cutoff() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, RATE, generator=generator)
    for cutoff_hz, ends_hz in ((8000.0, 3500.0), (2500.0, 2500.0)):
        level = spectrogram_db(page.anchor(noise, clip("a", "b", cutoff_hz))).mean(axis=1)
        bins = np.arange(len(level)) * RATE / 2048
        assert level[bins < 0.9 * ends_hz].min() > level[bins > 1.5 * ends_hz].max() + 40


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    text = write_page(tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "/*" not in re.sub(r"(?s)<style>.*?</style>", "", text).split("<script>")[0]
    assert text.count("</script>") == 2  # of the data and of the code: no text ends them early


def test_equal_pages_have_one_identity_and_others_another(tmp_path: Path) -> None:
    first, second = (data_of(write_page(tmp_path / name)) for name in ("a", "b"))
    assert first["id"] == second["id"]
    other = ListeningPage(tmp_path / "c", "F0, F1", METRICS)
    other.add(clip("speech/one", "speech"), versions())
    assert data_of(other.write())["id"] != first["id"]


def test_a_new_page_removes_the_files_of_the_old_one_and_no_others(tmp_path: Path) -> None:
    write_page(tmp_path)
    (tmp_path / "listen/notes.txt").write_text("mine", encoding="utf-8")
    smaller = ListeningPage(tmp_path, "F0", METRICS)
    smaller.add(clip("other", "speech"), versions())
    data = data_of(smaller.write())
    left = {p.relative_to(tmp_path).as_posix() for p in (tmp_path / "listen").rglob("*.*")}
    assert left == {*data["files"], "listen/notes.txt"}


def test_versions_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    listening = ListeningPage(tmp_path, "x", METRICS)
    good = versions()
    with pytest.raises(ValueError, match="differ in shape"):
        listening.add(clip("a", "b"), [*good, Version("F2", "system", good[0].audio[:, 1:])])
    with pytest.raises(ValueError, match="distinct names"):
        listening.add(clip("a", "b"), [*good, good[-1]])
    with pytest.raises(ValueError, match="one truth and one input"):
        listening.add(clip("a", "b"), good[1:])

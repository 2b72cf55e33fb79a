"""The page: what it accepts, says, keeps and removes. Its look and its player: test_app_browser."""

import asyncio
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny_models import changed, shipped
from tiny_restorer import RATE, tiny_model

from saga_sr.app import facts
from saga_sr.app.__main__ import parse_args
from saga_sr.app.audio import (
    WAITING,
    Clip,
    _Picture,
    accept,
    colour_scale,
    inspect_clip,
    matched_gains,
)
from saga_sr.app.example import write_example
from saga_sr.app.limits import MAX_SEED, check_config
from saga_sr.app.scratch import PREFIX, scratch_folder
from saga_sr.app.serve import serving
from saga_sr.app.studio import Studio, options_from, restore_clip
from saga_sr.app.uploads import ABANDONED_S, safe_name
from saga_sr.app.visits import Steps, StoppedError
from saga_sr.app.words import LANGUAGES, WORDS, PageError, language_of
from saga_sr.audio.repair import NOTES
from saga_sr.audio.spectrogram import FLOOR_DB, RANGE_DB, comparison_image, spectrogram_db
from saga_sr.config import ModelConfig, parse_model_config, student_config, untrained_guidance
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import numpy_generator
from saga_sr.support.shipped import MODEL, shipped_file
from saga_sr.upsample.options import UpsampleOptions, upsample

ROOT = Path(__file__).parents[2]
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="gradio is an extra: pip install -r requirements-app.txt",
)


def wav(path: Path, frames: int = 4000, channels: int = 1, rate: int = 8000) -> Path:
    """Noise at -20 dB."""
    noise = 0.1 * numpy_generator("page", frames).standard_normal((frames, channels))
    soundfile.write(path, noise, rate, "FLOAT")
    return path


def demo_config(**values: object) -> ModelConfig:
    return parse_model_config(changed(shipped("saga_model_config_demo.json"), **values))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model().save_pretrained(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def studio(model_folder: str, tmp_path: Path) -> Iterator[Studio]:
    root = tmp_path / "studio"
    root.mkdir()
    studio = Studio({"tiny": model_folder}, root, torch.device("cpu"), max_duration_s=60)
    yield studio
    studio.close()


def uploaded(studio: Studio, name: str = "a.wav", **properties: int) -> str:
    """The token of a file that has arrived."""
    with tempfile.TemporaryDirectory() as folder:
        content = wav(Path(folder) / "sent.wav", **properties).read_bytes()
    return asyncio.run(studio.uploads.receive(name, pieces(content)))


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def finished(steps: Steps) -> object:
    for _ in steps:
        pass
    return steps.done


# ---------------------------------------------------------------------------- command line
@pytest.mark.parametrize(("flags", "code"), [(["--help"], 0), (["--port", "99999"], 2)])
def test_command_line_help_and_mistakes_need_neither_torch_nor_gradio(
    flags: list[str], code: int
) -> None:
    script = (
        f"import runpy, sys\nsys.argv = ['app', *{flags!r}]\n"
        "try: runpy.run_module('saga_sr.app', run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code, {'torch', 'gradio'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == f"{code} set()"


def test_command_line_listens_on_loopback_unless_told_otherwise() -> None:
    assert parse_args([]).host == "127.0.0.1"


def test_command_line_starts_with_the_model_that_this_repository_ships() -> None:
    demo_model = shipped_file(MODEL)
    assert parse_args([]).model == [str(demo_model)]
    assert demo_model is not None
    assert (demo_model / "config.json").is_file()


def test_serving_without_gradio_says_what_to_install(
    model_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-app\.txt"):
        serving([model_folder]).__enter__()


# ---------------------------------------------------------------------------- what is said
@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.24, "0:00.2"), (9.96, "0:10.0"), (59.96, "1:00"), (61, "1:01"), (3600, "60:00")],
)
def test_clock_reads_as_on_a_player(seconds: float, text: str) -> None:
    assert facts.clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (38.4, "38 s"), (210, "3.5 min"), (900, "15 min")]
)
def test_seconds_text_has_two_digits(seconds: float, text: str) -> None:
    assert str(facts.seconds_text(seconds)) == text


def test_busy_text_extrapolates_and_tells_who_waits() -> None:
    assert str(facts.busy_text("restoring", 0.25, 20)) == "Restoring, 60 s left"
    assert facts.busy_text("restoring", 0.25, 20).text("zh") == "正在修复，还需 60 秒"
    assert str(facts.busy_text("restoring", 0.0, 20)) == "Restoring"
    assert "another" in str(facts.busy_text("restoring", WAITING, 20))


def test_model_labels_are_short_and_unique() -> None:
    assert facts.model_labels(["runs/a/export", "models/demo"]) == {
        "export": "runs/a/export",
        "demo": "models/demo",
    }
    assert list(facts.model_labels(["runs/a/export", "runs/b/export"])) == ["a/export", "b/export"]
    with pytest.raises(UserError, match="twice"):
        facts.model_labels(["runs/a", "runs/a"])


def test_words_are_in_all_languages_with_the_same_values() -> None:
    for key, words in WORDS.items():
        assert list(words) == list(LANGUAGES), key
        names = [{field for _, field, _, _ in Formatter().parse(words[n]) if field} for n in words]
        assert names[0] == names[1], key
        assert words["zh"] != words["en"], key


def test_words_are_all_said_somewhere_and_all_that_is_said_is_there() -> None:
    package = ROOT / "saga_sr" / "app"
    files = [path for suffix in ("py", "js", "html") for path in package.rglob(f"*.{suffix}")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for key in WORDS:
        assert re.search(rf"""["']{key}["']""", text), key
    said = re.findall(r"""(?:say|message|PageError|I18N)\(\s*["'](\w+)["']""", text)
    said += re.findall(r"""data-say(?:-\w+)?="(\w+)""", text)
    assert set(said) <= set(WORDS)


@pytest.mark.parametrize(
    ("header", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("ZH", "zh"), ("en-GB,zh;q=0.5", "en"), ("de", "en")],
)
def test_language_is_the_first_that_the_browser_asks_for(header: str, language: str) -> None:
    assert language_of(header) == language


@pytest.mark.parametrize("error", [OSError(28, "No space", "/srv/x"), KeyError("/srv/x")])
def test_error_text_names_no_path_of_the_server(error: Exception) -> None:
    for language in LANGUAGES:
        assert "/srv" not in facts.status_value("error", facts.error_text(error), language)["text"]


# ---------------------------------------------------------------------------- controls
STAGES = {
    "F0": {},
    "F1": {"model__diffusion__compute_rolloff": True},
    "F2": {
        "model__diffusion__compute_rolloff": True,
        "model__diffusion__cross_attention_cond_ids": ["prompt"],
    },
}


@pytest.mark.parametrize("stage", STAGES)
def test_controls_are_shown_where_the_model_has_them_and_hold_its_defaults(stage: str) -> None:
    config = demo_config(**STAGES[stage])
    settings = facts.control_settings(config)
    assert settings["rolloff_hz"]["visible"] == (stage != "F0")
    assert settings["prompt"]["visible"] == settings["guidance_text"]["visible"] == (stage == "F2")
    assert settings["num_steps"]["value"] == config.sampling.num_steps
    for name, slider in settings.items():
        if name != "prompt":
            assert slider["minimum"] <= slider["value"] <= slider["maximum"]
    assert settings["rolloff_hz"]["maximum"] < config.sample_rate / 2
    target_hz = config.sampling.target_rolloff * config.sample_rate / 2
    assert settings["rolloff_hz"]["value"] == pytest.approx(target_hz, abs=100)


def test_a_model_that_guesses_the_rolloff_offers_zero_and_no_other_does() -> None:
    dropout = {"rolloff_prob": 0.5}
    told = demo_config(**STAGES["F2"], training__dropout={"rolloff_prob": 0.0})
    guesses = demo_config(
        **STAGES["F2"], training__dropout=dropout, sampling={"target_rolloff": 0.0}
    )
    slider = facts.control_settings(guesses)["rolloff_hz"]
    assert (slider["value"], slider["minimum"]) == (0, 0)
    assert facts.control_settings(told)["rolloff_hz"]["minimum"] > 0
    assert options_from(guesses, 0, "", 7.0, 1.5, 1.2, 3.0).target_rolloff_hz == 0
    with pytest.raises(PageError, match="roll-off"):
        options_from(told, 0, "", 7.0, 1.5, 1.2, 3.0)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("probs", list(itertools.product([0, 0.05], repeat=3)))
def test_acoustic_guidance_is_offered_where_the_model_was_trained_for_it(
    stage: str, probs: tuple[float, ...]
) -> None:
    dropout = dict(zip(("both_prob", "lr_prob", "text_prob"), probs, strict=True))
    sampling = {"guidance_acoustic": 1.0, "guidance_text": 1.0}
    config = demo_config(**STAGES[stage], training__dropout=dropout, sampling=sampling)
    guided = {"guidance_acoustic": 1.4, "guidance_text": 1.4}
    sampling = config.sampling.model_copy(update=guided)
    problems = untrained_guidance(config.model_copy(update={"sampling": sampling}))
    assert facts.can_guide(config) == (not problems)


@pytest.mark.parametrize("stage", STAGES)
def test_options_leave_out_what_the_model_does_not_have(stage: str) -> None:
    config = demo_config(**STAGES[stage])
    options = options_from(config, 9000, "rain", 7.0, 1.5, 1.2, 3.0)
    assert (options.target_rolloff_hz is None) == (stage == "F0")
    assert (options.prompt == "rain") == (stage == "F2")
    assert (options.guidance_text is None) == (stage != "F2")
    assert (options.num_steps, options.seed) == (7, 3)


def test_a_student_is_offered_no_guidance_and_given_none() -> None:
    config = student_config(demo_config(**STAGES["F2"]), [1, 4])
    settings = facts.control_settings(config)
    assert settings["prompt"]["visible"]
    assert not settings["guidance_acoustic"]["visible"]
    assert not settings["guidance_text"]["visible"]
    options = options_from(config, 9000, "rain", 2.0, 1.0, 1.0, 3.0)
    assert (options.guidance_acoustic, options.guidance_text, options.num_steps) == (None, None, 2)
    sampling = config.with_num_steps(2).sampling
    assert (sampling.num_steps, sampling.emulate_linear_steps) == (2, 2)


@pytest.mark.parametrize("seed", [None, -1, 1.5, MAX_SEED + 1, 1e30, float("inf"), float("nan")])
def test_options_a_seed_that_is_none_is_refused(seed: float | None) -> None:
    with pytest.raises(UserError, match=f"whole number from 0 to {MAX_SEED}"):
        options_from(demo_config(), 9000, "", 7, 1, 1, seed)


def test_options_the_largest_seed_is_taken() -> None:
    assert options_from(demo_config(), 9000, "", 7, 1, 1, MAX_SEED).seed == MAX_SEED


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [("Steps", 3, 1e9), ("Steps", 3, 0), ("Acoustic", 4, 1e30), ("Target", 1, float("nan"))],
)
def test_options_beyond_a_slider_are_refused(name: str, at: int, value: float) -> None:
    controls: list[Any] = [demo_config(), 9000, "", 7, 1, 1, 0]
    controls[at] = value
    with pytest.raises(UserError, match=rf"^{name}.* may be from"):
        options_from(*controls)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("sampling.num_steps is 1e+09; the page takes 1 to 1000", {"num_steps": 10**9}),
        ("sampling.guidance_acoustic is 1e+30", {"guidance_acoustic": 1e30}),
        ("sample_size / sample_rate is", {"sample_size": 44100 * 4096}),
        ("sample_rate is 1e+09; the page takes 8000 to 192000", {"sample_rate": 10**9}),
    ],
)
def test_a_config_beyond_use_is_refused_by_key_value_and_limit(
    key: str, changes: dict[str, Any]
) -> None:
    config = demo_config()
    check_config(config, "models/demo")
    if key.startswith("sample_"):
        config = config.model_copy(update=changes)
    else:
        config = config.model_copy(update={"sampling": config.sampling.model_copy(update=changes)})
    with pytest.raises(UserError) as error:
        check_config(config, "models/demo")
    assert "--model models/demo" in str(error.value)
    assert key in str(error.value)


def test_a_studio_holds_its_models_to_the_limits(model_folder: str, tmp_path: Path) -> None:
    config = json.loads((Path(model_folder) / "config.json").read_text(encoding="utf-8"))
    config["sampling"]["num_steps"] = 10**9
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").symlink_to(Path(model_folder) / "model.safetensors")
    with pytest.raises(UserError, match="takes 1 to 1000"):
        Studio({"greedy": str(tmp_path)}, tmp_path, torch.device("cpu"), max_duration_s=60)


# ---------------------------------------------------------------------------- files in
def bad_file(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "text":
        path.write_text("not audio", encoding="utf-8")
    elif kind == "empty":
        path.touch()
    elif kind == "long":
        wav(path, frames=8000 * 4)
    else:
        wav(path, channels=6)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [("text", "readable are"), ("empty", "empty"), ("long", "up to"), ("surround", "6 channels")],
)
def test_accept_refuses_with_one_sentence_that_names_the_file_only(
    kind: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says) as error:
        accept(bad_file(kind, tmp_path), max_duration_s=3)
    message = str(error.value)
    assert message.startswith(f"{kind}.wav")
    assert str(tmp_path) not in message
    assert "\n" not in message


def test_inspect_a_file_with_a_nan_is_refused_while_it_is_read(tmp_path: Path) -> None:
    audio = np.zeros(9000)
    audio[8000] = np.nan
    soundfile.write(tmp_path / "a.wav", audio, 8000, "FLOAT")
    source = accept(tmp_path / "a.wav", 60)
    with pytest.raises(UserError, match=r"a\.wav: a sample at 1\.000 s is NaN"):
        inspect_clip(source, RATE, tmp_path, lambda _: None)


def test_picture_drawn_in_chunks_is_that_of_the_whole() -> None:
    audio = 0.1 * torch.randn(2, 300_000, generator=torch.Generator().manual_seed(0))
    audio[:, 131_000:131_100] += 0.5  # at the border of two chunks
    picture = _Picture(300_000)
    for piece in audio.split(70_001, dim=1):
        picture.add(piece)
    drawn = 10 ** (picture.finish() / 10)
    whole = 10 ** (spectrogram_db(audio) / 10)
    column = np.arange(1172) * 1000 // 1172
    expected = np.stack([whole[:, :1172][:, column == i].mean(axis=1) for i in range(1000)], axis=1)
    np.testing.assert_allclose(drawn, expected, rtol=1e-3)


def test_inspect_draws_a_tone_at_its_height_and_measures_it(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 3000 * np.arange(20_000) / 16_000)
    soundfile.write(tmp_path / "tone.wav", tone, 16_000, "FLOAT")
    shares: list[float] = []
    clip = inspect_clip(accept(tmp_path / "tone.wav", 60), RATE, tmp_path, shares.append)
    picture = Image.open(clip.picture)
    rows = np.asarray(picture.convert("L"), dtype=float)
    share_from_top = rows.mean(axis=1).argmax() / len(rows)
    assert (1 - share_from_top) * RATE / 2 == pytest.approx(3000, abs=60)
    assert clip.level == pytest.approx(0.5 / 2**0.5, rel=0.01)
    assert clip.duration_s == pytest.approx(1.25)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    preview, rate = soundfile.read(clip.preview)
    assert (rate, len(preview)) == (RATE, clip.frames)
    assert np.abs(preview).max() == pytest.approx(0.5, abs=0.03)


# ---------------------------------------------------------------------------- files out
@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    source = accept(wav(tmp_path / "take 1.wav", frames=3000, channels=2), 60)
    return inspect_clip(source, RATE, tmp_path, lambda _: None)


def test_restore_keeps_what_upsample_gives_and_plays_input_beside_it(
    clip: Clip, tmp_path: Path
) -> None:
    options = UpsampleOptions(num_steps=2, seed=5)
    shares: list[float] = []
    found = restore_clip(tiny_model(), clip, options, tmp_path, shares.append)
    audio, _ = soundfile.read(tmp_path / "take 1.wav", dtype="float32")
    expected = upsample(tiny_model(), audio.T, 8000, options)
    written, rate = soundfile.read(found.audio, dtype="float32")
    assert found.audio.name == "take 1.restored.wav"
    assert rate == RATE
    np.testing.assert_array_equal(written.T, expected)

    played, _ = soundfile.read(found.preview, dtype="float32")
    peak = max(clip.peak, found.written.peak, 1.0)
    assert played.shape == (clip.frames, 4)
    np.testing.assert_allclose(played[:, 2:] * peak, written, atol=1e-4)
    alone, _ = soundfile.read(clip.preview, dtype="float32")
    np.testing.assert_allclose(played[:, :2] * peak, alone * max(clip.peak, 1.0), atol=1e-4)
    assert shares == sorted(shares)
    assert shares[-1] == 1

    levels = np.sqrt((played**2).mean(axis=0).reshape(2, 2).mean(axis=1)) * found.gains
    assert levels[0] == pytest.approx(levels[1], rel=1e-3)
    assert max(found.gains) == 1


def test_result_verdict_names_peaks_that_go_over_by_what_can_be_said(
    clip: Clip, tmp_path: Path
) -> None:
    options = UpsampleOptions(num_steps=1)
    result = restore_clip(tiny_model(), clip, options, tmp_path, lambda _: None)

    def verdict(peak: float) -> str:
        written = dataclasses.replace(result.written, peak=peak, over=1)
        return str(facts.result_verdict(dataclasses.replace(result, written=written)))

    for peak in (0.0, 1.0, 1.000001, 1.005):
        assert verdict(peak).startswith("Restored in")
        assert "Peaks" not in verdict(peak)
    for peak, said in ((1.02, "0.2 dB"), (2.0, "6.0 dB")):
        assert f"Peaks go {said} over full scale" in verdict(peak)


def test_silence_is_drawn_in_the_darkest_colour(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(3000), 8000)
    silent = inspect_clip(accept(tmp_path / "silence.wav", 60), RATE, tmp_path, lambda _: None)
    pixels = np.asarray(Image.open(silent.picture).convert("L"))
    assert pixels.max() <= 1
    assert silent.top_db == FLOOR_DB + RANGE_DB
    figure = comparison_image({"silence": torch.zeros(1, 3000)}, RATE, None)
    dark = np.array([int(colour_scale()[0][i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(figure[150:200, 150:250] - dark) <= 1).all()


def test_scale_of_a_picture_is_its_colours_and_what_they_mean(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 3000 * np.arange(20_000) / 16_000)
    soundfile.write(tmp_path / "tone.wav", tone, 16_000, "FLOAT")
    clip = inspect_clip(accept(tmp_path / "tone.wav", 60), RATE, tmp_path, lambda _: None)
    scale = facts.stage_value(clip)["scale"]
    assert scale["top_db"] == pytest.approx(20 * np.log10(0.5), abs=1)
    assert scale["range_db"] == RANGE_DB
    palette = Image.open(clip.picture).getpalette()
    assert palette is not None
    ends = ["#" + bytes(palette[3 * i : 3 * i + 3]).hex() for i in (0, 255)]
    assert ends == [scale["colours"][0], scale["colours"][-1]]


def test_example_is_the_same_each_time_and_ends_where_it_should(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_example(tmp_path / name)
    paths = [tmp_path / name / "example.wav" for name in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    clip = inspect_clip(accept(paths[0], 60), 44100, tmp_path, lambda _: None)
    assert 3500 < clip.bandwidth.end_hz <= 4000
    assert 5 < clip.duration_s < 15
    assert 0.3 < clip.peak < 1


def test_matched_gains_of_silence_change_nothing() -> None:
    assert matched_gains(0.0, 0.3) == (1.0, 1.0)


def test_stage_value_of_a_result_is_json_and_its_files_exist(clip: Clip, tmp_path: Path) -> None:
    result = restore_clip(
        tiny_model(), clip, UpsampleOptions(num_steps=1), tmp_path, lambda _: None
    )
    value = json.loads(json.dumps(facts.stage_value(clip, result)))
    urls = [value["input"]["picture"], value["output"]["picture"], value["audio"]]
    for url in [*urls, value["download"]["url"]]:
        path = urllib.request.url2pathname(url.removeprefix("gradio_api/file="))
        assert Path(path).is_file()
    assert value["duration_s"] == pytest.approx(3000 / 8000, abs=1e-4)
    assert 0 < value["cutoff_hz"] <= 4000 * 1.1


def test_stage_value_of_silence_marks_no_cutoff(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(3000), 8000)
    silent = inspect_clip(accept(tmp_path / "silence.wav", 60), RATE, tmp_path, lambda _: None)
    assert facts.stage_value(silent)["cutoff_hz"] is None
    assert "silent" in str(facts.clip_verdict(silent))
    result = restore_clip(tiny_model(), silent, UpsampleOptions(), tmp_path, lambda _: None)
    assert result.passed_through
    assert not soundfile.read(result.audio)[0].any()


def test_what_was_mended_in_a_file_is_said_in_the_visitors_language(tmp_path: Path) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write(tmp_path / "one.ogg", samples, 8000)
    one = (tmp_path / "one.ogg").read_bytes()
    (tmp_path / "both.ogg").write_bytes(one + one)
    clip = inspect_clip(accept(tmp_path / "both.ogg", 60), RATE, tmp_path, lambda _: None)
    verdict = facts.clip_verdict(clip)
    assert "It is 2 recordings one after the other" in verdict.text("en")
    assert "2 段录音首尾相接" in verdict.text("zh")
    assert "ends at" in verdict.text("en")
    whole = inspect_clip(accept(tmp_path / "one.ogg", 60), RATE, tmp_path, lambda _: None)
    assert "recordings" not in facts.clip_verdict(whole).text("en")


def test_every_kind_of_mending_can_be_said() -> None:
    assert set(facts.MENDED) == set(NOTES)
    for kind, english in NOTES.items():
        fields = {field for _, field, _, _ in Formatter().parse(english) if field}
        for words in WORDS[facts.MENDED[kind]].values():
            assert {field for _, field, _, _ in Formatter().parse(words) if field} == fields


# ---------------------------------------------------------------------------- visits
def test_load_takes_only_files_that_were_uploaded_and_each_once(
    studio: Studio, tmp_path: Path
) -> None:
    secret = wav(tmp_path / "secret.wav")
    visit = studio.visit("a")
    taken = uploaded(studio)
    finished(studio.load(visit, taken))
    before = files_below(studio.root)
    for token in (str(secret), "../../secret.wav", "", ".", taken):
        with pytest.raises(UserError, match="did not arrive"):
            studio.load(visit, token)
    assert secret.is_file()
    assert files_below(studio.root) == before


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "C:\\music\\a.wav",
        "." * 9,
        "",
        "a\n\0b.wav",
        "界" * 300 + ".wav",
        "x" * 999,
    ],
)
def test_upload_of_any_name_stays_in_its_folder_and_can_be_restored(
    studio: Studio, name: str
) -> None:
    visit = studio.visit("a")
    finished(studio.load(visit, uploaded(studio, name)))
    result = finished(studio.restore(visit, "tiny", UpsampleOptions(num_steps=1)))
    assert result.audio.parent.parent == visit.folder
    assert safe_name(name).isprintable()


def test_upload_that_is_too_large_or_breaks_off_leaves_nothing(studio: Studio) -> None:
    studio.uploads.max_bytes = 3000
    with pytest.raises(PageError, match=r"a\.wav is too large"):
        uploaded(studio)

    async def broken() -> AsyncIterator[bytes]:
        yield b"RIFF"
        raise ConnectionResetError

    with pytest.raises(UserError):
        asyncio.run(studio.uploads.receive("a.wav", broken()))
    assert list(studio.uploads.root.iterdir()) == []


def test_visits_that_load_at_once_do_not_touch_each_others_files(studio: Studio) -> None:
    """Same content, same name, all at once, while others of their kind leave."""
    tokens = [uploaded(studio) for _ in range(44)]
    start = threading.Barrier(44)

    def come(key: int) -> object:
        start.wait()
        clip = finished(studio.load(studio.visit(str(key)), tokens[key]))
        if key % 2:
            studio.leave(str(key))
        return clip

    with ThreadPoolExecutor(44) as pool:
        clips = list(pool.map(come, range(44)))
    assert all(isinstance(clip, Clip) for clip in clips)
    assert len([name for name in files_below(studio.root) if name == "a.wav"]) == 22


def test_visits_without_a_file_have_no_folder(studio: Studio) -> None:
    for key in range(32):
        visit = studio.visit(str(key))
        with pytest.raises(UserError):
            studio.load(visit, "no such token")
        with pytest.raises(UserError):
            studio.restore(visit, "tiny", UpsampleOptions())
    with pytest.raises(UserError):
        studio.load(studio.visit("0"), uploaded(studio, "long.wav", frames=8000 * 61))
    assert [path.name for path in studio.root.iterdir()] == ["uploads"]


def test_visits_and_uploads_that_are_not_heard_of_for_an_hour_go(studio: Studio) -> None:
    finished(studio.load(studio.visit("gone"), uploaded(studio, "gone.wav")))
    finished(studio.load(studio.visit("open"), uploaded(studio, "open.wav")))
    uploaded(studio, "left.wav")
    an_hour_later = time.monotonic() + ABANDONED_S
    studio.visit("gone").seen -= 1
    for at in studio.uploads._arrived:
        studio.uploads._arrived[at] -= 1
    studio.sweep(an_hour_later - 1.5)
    assert studio.is_open("gone")
    studio.visit("gone").seen -= 60
    studio.sweep(an_hour_later - 10)
    assert studio.is_open("open")  # a page that asks stays
    assert not studio.is_open("gone")
    assert {"gone.wav", "left.wav"} & set(files_below(studio.root)) == {"left.wav"}
    studio.sweep(an_hour_later)
    assert "left.wav" not in files_below(studio.root)
    assert list(studio.uploads.root.iterdir()) == []


def test_loading_into_a_visit_that_was_closed_stops_and_leaves_nothing(studio: Studio) -> None:
    visit, token = studio.visit("a"), uploaded(studio)
    studio.leave("a")
    with pytest.raises(StoppedError):
        studio.load(visit, token)
    assert [path.name for path in studio.root.iterdir()] == ["uploads"]


def test_load_of_a_bad_file_keeps_the_good_one_before_it(studio: Studio) -> None:
    visit = studio.visit("a")
    clip = finished(studio.load(visit, uploaded(studio)))
    before = files_below(studio.root)
    with pytest.raises(UserError):
        studio.load(visit, uploaded(studio, "long.wav", frames=8000 * 61))
    assert visit.clip is clip
    assert files_below(studio.root) == before


def test_newer_files_and_results_replace_older_ones(studio: Studio) -> None:
    visit = studio.visit("a")
    finished(studio.load(visit, uploaded(studio, "one.wav")))
    loaded = files_below(studio.root)
    options = UpsampleOptions(num_steps=1)
    for _ in range(2):
        finished(studio.restore(visit, "tiny", options))
        assert len(files_below(studio.root)) == len(loaded) + 3
    finished(studio.load(visit, uploaded(studio, "two.wav")))
    assert files_below(studio.root) == [name.replace("one", "two") for name in loaded]
    assert list(studio.uploads.root.iterdir()) == []


def test_leaving_removes_everything_of_this_visit_only(studio: Studio) -> None:
    for key in ("a", "b"):
        finished(studio.load(studio.visit(key), uploaded(studio, f"{key}.wav")))
    studio.leave("a")
    assert "b.wav" in files_below(studio.root)
    assert "a.wav" not in files_below(studio.root)
    studio.close()
    assert files_below(studio.root) == []


def test_restoring_without_a_file_is_refused(studio: Studio) -> None:
    with pytest.raises(UserError, match="Drop a file"):
        studio.restore(studio.visit("a"), "tiny", UpsampleOptions())


@pytest.mark.parametrize("how", ["stop", "leave", "abandon"])
def test_restoration_that_is_stopped_leaves_no_file(studio: Studio, how: str) -> None:
    """When its thread has ended, which on a busy machine is minutes after it was told to."""
    threads = set(threading.enumerate())
    visit = studio.visit("a")
    finished(studio.load(visit, uploaded(studio, frames=16_000)))
    before = [] if how == "leave" else files_below(studio.root)
    steps = iter(studio.restore(visit, "tiny", UpsampleOptions(num_steps=1000)))
    next(steps)
    if how == "abandon":
        steps.close()  # what Gradio does when a page is gone
    else:
        visit.stop.set() if how == "stop" else studio.leave("a")
        with pytest.raises(StoppedError):
            list(steps)
    for thread in set(threading.enumerate()) - threads:
        thread.join(300)
    assert files_below(studio.root) == before
    assert visit.folder.exists() == (how != "leave")


def test_a_second_restoration_of_a_visit_stops_the_first(studio: Studio) -> None:
    visit = studio.visit("a")
    finished(studio.load(visit, uploaded(studio)))
    first = iter(studio.restore(visit, "tiny", UpsampleOptions(num_steps=100)))
    next(first)
    assert finished(studio.restore(visit, "tiny", UpsampleOptions(num_steps=1)))
    with pytest.raises(StoppedError):
        list(first)


def test_restorations_of_two_visits_take_turns(studio: Studio) -> None:
    for key in ("a", "b"):
        finished(studio.load(studio.visit(key), uploaded(studio, f"{key}.wav", frames=1500)))
    first = iter(studio.restore(studio.visit("a"), "tiny", UpsampleOptions(num_steps=500)))
    assert next(first) == 0
    while next(first) == 0:
        pass
    second = list(studio.restore(studio.visit("b"), "tiny", UpsampleOptions(num_steps=1)))
    assert WAITING in second
    list(first)


def test_steps_hand_on_the_error_of_the_work() -> None:
    def work(_report: object) -> None:
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="disk is full"):
        list(Steps(work, threading.Event()))


def test_studio_refuses_models_of_different_rates(model_folder: str, tmp_path: Path) -> None:
    config = json.loads((Path(model_folder) / "config.json").read_text(encoding="utf-8"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config | {"sample_rate": 44000}))
    (other / "model.safetensors").symlink_to(Path(model_folder) / "model.safetensors")
    with pytest.raises(UserError, match="sample rate"):
        Studio({"a": model_folder, "b": str(other)}, tmp_path, torch.device("cpu"), 60)


# ---------------------------------------------------------------------------- the server
def status_of(url: str, body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(url, body, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@needs_gradio
def test_page_refuses_a_bad_file_with_a_sentence_and_takes_a_good_one(studio: Studio) -> None:
    import gradio
    from starlette.datastructures import Headers

    from saga_sr.app.ui import Page

    page, request = Page(studio), gradio.Request(session_hash="a", headers=Headers({}))
    bad = gradio.EventData(None, {"token": uploaded(studio, "bad.wav", frames=8000 * 61)})
    *_, refused = page.on_upload(bad, request)
    assert refused[page.status]["kind"] == "error"
    assert page.stage not in refused
    good = gradio.EventData(None, {"token": uploaded(studio)})
    *_, taken = page.on_upload(good, request)
    assert taken[page.stage]["name"] == "a.wav"
    controls = ["tiny", 9000, "", 1, 1.0, 1.0, 0]
    *busy, done = page.on_run(*controls, request)
    assert any(shown.get(page.status, {}).get("kind") == "busy" for shown in busy)
    assert done[page.stage]["output"]
    *_, wrong = page.on_run(*controls[:-1], -3, request)
    assert "whole number" in wrong[page.status]["text"]
    page.on_unload(request)
    assert files_below(studio.root) == []


class Caller:
    """A visitor at the server's door, with or without a page."""

    def __init__(self, address: str, key: str, language: str = "en") -> None:
        self.address, self.key = address, key
        self.headers = {"Accept-Language": language, "Content-Type": "application/json"}
        config = self._ask("config")
        self.numbers = {
            event: number
            for number, function in enumerate(config["dependencies"])
            for _, event in function["targets"]
        }

    def _open(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.address}/{path}", body, self.headers)
        return urllib.request.urlopen(request, timeout=60)

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with self._open(path, body) as answer:
            return json.load(answer)

    def send(self, content: bytes, name: str = "a.wav") -> str:
        return self._ask(f"upload?name={name}", content)["token"]

    def is_open(self) -> bool:
        return self._ask(f"visit/{self.key}")["open"]

    def call(self, event: str, data: dict[str, Any]) -> list[Any]:
        """What the page would show at the end of an event."""
        number = self.numbers[event]
        body = {"data": [], "event_data": data, "fn_index": number, "session_hash": self.key}
        self._ask("gradio_api/queue/join", json.dumps(body).encode())
        with self._open(f"gradio_api/queue/data?session_hash={self.key}") as stream:
            shown: list[Any] = []
            for line in stream:
                if not line.startswith(b"data:"):
                    continue
                told = json.loads(line[5:])
                if told["msg"] in ("process_generating", "process_completed"):
                    shown.append(told["output"].get("data") or told["output"])
                if told["msg"] == "process_completed":
                    return shown
        raise AssertionError("the stream ended")


@needs_gradio
def test_22_visitors_who_send_the_same_file_at_once_are_all_served(
    model_folder: str, tmp_path: Path
) -> None:
    content = wav(tmp_path / "a.wav").read_bytes()
    start = threading.Barrier(22)

    def come(number: int) -> str:
        caller = Caller(address, f"visitor-{number}")
        start.wait()
        return str(caller.call("upload", {"token": caller.send(content)}))

    with serving([model_folder]) as address, ThreadPoolExecutor(22) as pool:
        for shown in pool.map(come, range(22)):
            assert "a.wav" in shown
            assert "The sound ends at" in shown
            assert "not arrive" not in shown


@needs_gradio
def test_server_speaks_the_visitors_language_and_knows_who_is_there(
    model_folder: str, tmp_path: Path
) -> None:
    content = wav(tmp_path / "a.wav").read_bytes()
    with serving([model_folder]) as address:
        caller = Caller(address, "somebody", "zh-CN,zh;q=0.9,en;q=0.5")
        assert not caller.is_open()
        assert "声音止于" in str(caller.call("upload", {"token": caller.send(content)}))
        assert "上传的文件没有收到" in str(caller.call("upload", {"token": "made up"}))
        assert caller.is_open()
        with urllib.request.urlopen(address, timeout=30) as response:
            assert (
                json.dumps(WORDS["drop_title"]["zh"], ensure_ascii=False).encode()
                in response.read()
            )
        assert status_of(f"{address}/gradio_api/upload", b"") == 404


@needs_gradio
def test_server_serves_its_page_and_its_files_on_loopback_alone(
    model_folder: str, tmp_path: Path
) -> None:
    secret = wav(tmp_path / "secret.wav")
    with serving([model_folder]) as address:
        port = int(address.rpartition(":")[2])
        assert address == f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(address, timeout=30) as response:
            assert b"SAGA-SR" in response.read()
        assert status_of(f"{address}/gradio_api/file={secret}") == 403
        with socket.socket() as probe:  # a host that listens everywhere answers here too
            assert probe.connect_ex(("127.0.0.2", port)) != 0
        with pytest.raises(UserError, match="cannot listen"):
            serving([model_folder], port=port).__enter__()


@needs_gradio
def test_command_serves_until_sigterm_and_removes_its_files(
    model_folder: str, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "saga_sr.app", "--model", model_folder, "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        assert status_of(f"http://127.0.0.1:{port}") == 200
        assert scratch_folders(tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    assert not scratch_folders(tmp_path)


def test_a_killed_servers_files_go_at_the_next_start_and_a_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl", reason="the lock that tells them apart is POSIX")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stranger = tmp_path / f"{PREFIX}stranger"  # who has no lock, say from an older version
    stranger.mkdir()
    script = (
        "import time\nfrom saga_sr.app.scratch import scratch_folder\n"
        "with scratch_folder() as folder: print(folder, flush=True), time.sleep(300)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as server:
        try:
            assert server.stdout is not None
            living = Path(server.stdout.readline().strip())
            wav(living / "a.wav")
            with scratch_folder() as own:
                assert sorted(scratch_folders(tmp_path)) == sorted([own, living, stranger])
        finally:
            server.kill()
    assert (living / "a.wav").is_file()
    with scratch_folder() as own:
        assert sorted(scratch_folders(tmp_path)) == sorted([own, stranger])
    assert scratch_folders(tmp_path) == [stranger]


def scratch_folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(PREFIX)]

"""The page in a real browser: a person's way through it, from the file to the download.

Needs the extra (requirements-app.txt), `pip install selenium`, and Chromium with its driver (in
Debian `apt-get install chromium chromium-driver`). Where one is missing, this is skipped.
"""

import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from person_at_page import Person
from tiny_restorer import RATE, tiny_model

from saga_sr.app.serve import serving
from saga_sr.support.randomness import numpy_generator

pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-app.txt")
pytest.importorskip("selenium", reason="needs: pip install selenium")
if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
    pytest.skip("needs chromium and chromedriver on the PATH", allow_module_level=True)

DURATION_S = 1.5
# Mean level in dB of what is heard, low band and the band that only the restored audio has.
_HEARD = """
const done = arguments[arguments.length - 1];
const {context, gains, audio} = document.querySelector('#stage .stage').parentElement.sagaPlayer;
const splitter = context().createChannelSplitter(2);
for (const gain of Object.values(gains())) gain.connect(splitter);
const probes = [0, 1].map((side) => {
  const probe = context().createAnalyser();
  splitter.connect(probe, side);
  return probe;
});
const before = audio.currentTime;
setTimeout(() => {
  const db = new Float32Array(1024), hz = context().sampleRate / 2048;
  const mean = (side, low, high) => {
    probes[side].getFloatFrequencyData(db);
    const part = db.slice(low / hz, high / hz).map((level) => Math.max(level, -200));
    return part.reduce((sum, level) => sum + level) / part.length;
  };
  const [low, high, right] = [mean(0, 300, 3000), mean(0, 6000, 12000), mean(1, 300, 12000)];
  done({low, high, right, moved: audio.currentTime - before});
}, 400);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    model = tiny_model().save_pretrained(folder / "tiny")
    with serving([str(model)], max_duration_s=60) as address:
        yield address


@pytest.fixture(scope="module")
def person(address: str, folder: Path) -> Iterator[Person]:
    with somebody(address, folder / "downloads") as person:
        yield person


@contextmanager
def somebody(address: str, downloads: Path, **properties: Any) -> Iterator[Person]:
    person = Person(address, downloads, **properties)
    try:
        yield person
    finally:
        person.browser.quit()


@pytest.fixture(scope="module")
def recording(folder: Path) -> Path:
    """Noise below 4 kHz on the left, silence on the right."""
    noise = 0.1 * numpy_generator("browser").standard_normal((round(8000 * DURATION_S), 2))
    noise[:, 1] = 0
    soundfile.write(folder / "old tape.wav", noise, 8000, "PCM_16")
    return folder / "old tape.wav"


def test_a_file_that_is_no_audio_is_refused_in_a_sentence(person: Person, folder: Path) -> None:
    (folder / "notes.wav").write_text("not audio", encoding="utf-8")
    person.load(folder / "notes.wav")
    person.until(lambda: person.status.startswith("notes.wav"))
    assert person.one(".status").get_attribute("data-kind") == "error"
    assert person.state() == "empty"


def test_a_file_is_shown_with_its_cutoff_before_anything_is_restored(
    person: Person, recording: Path
) -> None:
    person.load(recording)
    person.until(lambda: person.state() == "loaded")
    assert person.one(".stage-name").text == "old tape.wav"
    label = person.one("[data-track=input] .cutoff").text
    assert float(label.split()[-2]) == pytest.approx(4.0, abs=0.4)
    rows = np.array(person.pixels("input"))
    assert rows[: len(rows) // 2].mean() < 5 < 60 < rows[-40:].mean()


_SCROLLED = """
return [...document.querySelectorAll('body *')].filter((element) => {
  const style = getComputedStyle(element);
  const scrolls = (overflow, is, shown) =>
    ['auto', 'scroll'].includes(overflow) && is > shown && shown > 0;
  return scrolls(style.overflowX, element.scrollWidth, element.clientWidth) ||
    scrolls(style.overflowY, element.scrollHeight, element.clientHeight);
}).map((element) => element.id || element.className);"""


def test_no_control_has_a_scroll_bar(person: Person) -> None:
    assert person.browser.execute_script(_SCROLLED) == []


def test_restoring_draws_a_new_band_and_the_slider_changes_it(person: Person) -> None:
    first = person.restore()
    rows = person.pixels("output")
    assert np.mean(rows[: len(rows) // 2]) > 20
    slider = person.one("#rolloff input[type=number]")
    before = float(slider.get_attribute("value"))
    handle = person.one("#rolloff input[type=range]")
    for _ in range(3):
        handle.send_keys("\ue014")  # the right arrow key
    person.until(lambda: float(slider.get_attribute("value")) == before + 300)
    second = person.restore()
    assert second != first
    assert person.pixels("output") != rows


def test_switching_while_playing_keeps_the_position_and_the_level(person: Person) -> None:
    person.browser.execute_script(
        "document.querySelector('#stage .stage').parentElement.sagaPlayer.audio.loop = true"
    )
    person.one(".play").click()
    person.until(lambda: person.position_s() > 0.05)
    restored = person.browser.execute_async_script(_HEARD)
    person.one(".switch [data-track=input]").click()
    plain = person.browser.execute_async_script(_HEARD)
    assert restored["moved"] or plain["moved"]
    assert plain["high"] < restored["high"] - 30
    assert plain["low"] == pytest.approx(restored["low"], abs=9)
    assert plain["right"] < plain["low"] - 60  # the channels are not mixed
    assert restored["right"] < restored["low"] - 60
    person.one(".play").click()
    held = person.position_s()
    person.one(".switch [data-track=output]").click()
    assert person.position_s() == held
    person.click_into("output")
    assert person.position_s() == pytest.approx(DURATION_S / 2, abs=0.05)
    heads = [head.rect["x"] for head in person.all(".playhead")]
    assert heads[0] == heads[1]


def test_keys_play_and_switch_also_after_clicks(person: Person) -> None:
    if person.is_playing():
        person.press(" ")
    person.one(".play").click()
    person.until(person.is_playing)
    person.press("x")
    assert person.heard() == "input"
    person.one(".switch [data-track=output]").click()
    assert person.heard() == "output"
    person.press(" ")
    person.until(lambda: not person.is_playing())
    assert person.heard() == "output"
    for key, track in (("1", "input"), ("2", "output"), ("x", "input"), ("x", "output")):
        person.press(key)
        assert person.heard() == track
    handle = person.one("#rolloff input[type=range]")
    handle.click()
    person.press(" ")
    person.until(person.is_playing)
    person.press(" ")
    person.until(lambda: not person.is_playing())


def test_keys_that_are_typed_into_a_field_are_no_commands(person: Person) -> None:
    person.press("2")
    field = person.one("#rolloff input[type=number]")
    before = field.get_attribute("value")
    field.click()
    person.press("1")
    assert person.heard() == "output"
    assert field.get_attribute("value") != before
    field.clear()
    field.send_keys(before)
    person.one(".stage-name").click()


def test_a_key_pressed_on_a_button_is_the_buttons_own(person: Person) -> None:
    person.browser.execute_script("document.querySelector('.play').focus()")
    person.press(" ")
    person.until(person.is_playing)
    person.press(" ")
    person.until(lambda: not person.is_playing())


def test_the_scale_beside_a_spectrogram_says_what_the_colours_mean(person: Person) -> None:
    for track in ("input", "output"):
        levels = person.one(f"[data-track={track}] .db").text.replace("\u2212", "-").split()
        assert levels.count("dB") == 1
        numbers = [int(level) for level in levels if level != "dB"]
        assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1, 20))
        assert len(numbers) >= 5
        scale, canvas = (
            person.one(f"[data-track={track}] {name}").rect for name in (".scale i", ".canvas")
        )
        assert (scale["y"], scale["height"]) == (canvas["y"], canvas["height"])


def test_the_download_is_a_wav_of_the_right_rate_and_length(person: Person, folder: Path) -> None:
    person.one(".download").click()
    path = folder / "downloads" / "old tape.restored.wav"
    person.until(path.is_file)
    info = soundfile.info(path)
    assert (info.format, info.samplerate, info.channels) == ("WAV", RATE, 2)
    assert info.frames == round(DURATION_S * RATE)


def test_what_is_recorded_is_loaded_as_it_came(person: Person) -> None:
    person.one(".drop-record").click()
    person.until(lambda: person.one(".drop-clock").text == "0:02")
    person.one(".drop-done").click()
    person.until(lambda: person.one(".stage-name").text == "recording.wav")
    assert person.state() == "loaded"
    assert not person.one(".download").is_displayed()


def test_the_page_asks_nobody_but_its_own_server(person: Person) -> None:
    names = person.browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert names
    origin = person.browser.execute_script("return location.origin")
    local = (origin, "blob:", "data:")
    assert [name for name in names if not name.startswith(local)] == []


def test_the_example_can_be_tried(person: Person) -> None:
    person.one(".drop-example").click()
    person.until(lambda: person.one(".stage-name").text == "example.wav")
    assert person.restore()


@pytest.mark.parametrize("seed", ["-3", "1e30", "4294967296"])
def test_a_seed_beyond_use_is_refused_in_a_sentence(person: Person, seed: str) -> None:
    if not person.all("#seed input"):
        person.one("#more button").click()
    field = person.until(lambda: person.all("#seed input"))[0]
    person.until(field.is_displayed)
    field.clear()
    field.send_keys(seed)
    person.one(".stage-name").click()
    person.one("#run").click()
    person.until(lambda: person.status.startswith("The seed is a whole number from 0 to"))
    field.clear()
    field.send_keys("0")
    person.one(".stage-name").click()


# ---------------------------------------------------------------------------- on a phone
def test_on_a_phone_all_is_within_the_screen_and_large_enough_for_a_thumb(
    address: str, folder: Path, recording: Path
) -> None:
    name = f"{'a_name_without_a_space_' * 4}.wav"
    shutil.copy(recording, folder / name)
    with somebody(address, folder, size=(390, 844)) as person:
        for step in ("empty", "loaded", "compared"):
            if step == "loaded":
                person.load(folder / name)
            elif step == "compared":
                person.restore()
                person.one("#more button").click()
            person.until(lambda step=step: person.state() == step)
            wide = person.browser.execute_script(
                """return [...document.querySelectorAll('body *')].filter((element) =>
                     element.checkVisibility() && element.getBoundingClientRect().right > 390
                     && !element.closest('.stage-name')
                   ).map((element) => element.id || element.className);"""
            )
            assert wide == []
            assert person.browser.execute_script("return document.body.scrollWidth") <= 390
            assert person.browser.execute_script(_SCROLLED) == []
            buttons = [
                button
                for button in person.all("#run, .drop button, .player button, .download")
                if button.is_displayed()
            ]
            assert len(buttons) >= 7
            assert [b.text for b in buttons if b.rect["height"] < 44] == []
        assert person.one(".stage-name").text.startswith("a_name")
        slider = person.one("#rolloff input[type=range]").rect
        assert slider["width"] > 250


# ---------------------------------------------------------------------------- in Chinese
def test_a_chinese_browser_is_spoken_to_in_chinese(
    address: str, folder: Path, recording: Path
) -> None:
    with somebody(address, folder, language="zh-CN") as person:
        for step in ("empty", "loaded", "compared", "error"):
            if step == "loaded":
                person.load(recording)
            elif step == "compared":
                person.restore()
                person.one("#more button").click()
                person.until(lambda: person.all("#seed input"))
            elif step == "error":
                (folder / "notes.wav").write_text("not audio", encoding="utf-8")
                person.load(folder / "notes.wav")
                person.until(lambda: person.status.startswith("notes.wav"))
            person.until(lambda step=step: person.state() in (step, "compared"))
            labelled = person.all(":is(.drop, .stage) [aria-label]")
            labels = [element.get_attribute("aria-label") or "" for element in labelled]
            said = " ".join([person.one("body").text, *labels])
            if step == "error":
                assert "无法读取" in person.status
                continue
            latin = set(re.findall(r"[A-Za-z-]{3,}", said.replace("old tape.wav", "")))
            assert latin <= {"SAGA-SR", "WAV", "kHz"}
        assert person.browser.execute_script("return document.documentElement.lang") == "zh"


# ---------------------------------------------------------------------------- without the server
def test_a_page_whose_server_has_ended_or_forgotten_it_says_so(
    folder: Path, recording: Path
) -> None:
    with serving([str(folder / "tiny")], max_duration_s=60) as address:
        person = Person(address, folder)
        person.load(recording)
        person.until(lambda: person.state() == "loaded")
        person.restore()
        person.until(lambda: person.status.startswith("Restored in"))
        asked = """return performance.getEntriesByType('resource')
            .map((entry) => entry.name).filter((name) => name.includes('/visit/')).pop()"""
        key = person.until(lambda: person.browser.execute_script(asked)).rpartition("/")[2]
        # What a connection that breaks looks like to the server.
        urllib.request.urlopen(f"{address}/gradio_api/heartbeat/{key}", timeout=30).close()
        person.until(lambda: "has removed the files of this page" in person.status)
        person.load(recording)
        person.until(lambda: person.status.startswith("The sound ends"))
    try:
        person.until(lambda: person.status.startswith("The server does not answer"))
        assert person.one(".status").get_attribute("data-kind") == "error"
    finally:
        person.browser.quit()

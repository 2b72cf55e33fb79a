"""The page in a real browser: a person's way through it, from the file to the download.

Needs the extra (requirements-app.txt), `pip install selenium`, and Chromium with its driver (in
Debian `apt-get install chromium chromium-driver`). Where one is missing, this is skipped.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_restorer import RATE, tiny_model

from saga_sr.app import serving
from saga_sr.randomness import numpy_generator

pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-app.txt")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs: pip install selenium")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs chromium and chromedriver on the PATH", allow_module_level=True)

DURATION_S = 1.5
_PATIENCE_S = 120
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


class Person:
    """Somebody in front of the page."""

    def __init__(self, address: str, downloads: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--window-size=1360,860",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
        ):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        self.browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.browser.set_script_timeout(_PATIENCE_S)
        self.browser.get(address)
        self.until(lambda: self.all(".drop-file"))

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def until(self, true: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := true()):
            assert time.monotonic() < deadline, self.status
            time.sleep(0.1)
        return value

    @property
    def status(self) -> str:
        return self.one(".status-text").text

    def state(self) -> str | None:
        return self.one(".stage").get_attribute("data-state")

    def load(self, path: Path) -> None:
        self.one(".drop-file").send_keys(str(path))

    def restore(self) -> str:
        """Press the button; the address of the new picture."""
        before = self.picture("output")
        self.until(lambda: self.one("#run").is_enabled())
        self.one("#run").click()
        return self.until(lambda: (new := self.picture("output")) != before and new)

    def picture(self, track: str) -> str:
        return self.one(f"[data-track={track}] img").get_attribute("src") or ""

    def pixels(self, track: str) -> list[int]:
        """Brightness of a picture, rows from the top."""
        script = """
            const image = document.querySelector(`[data-track=${arguments[0]}] img`);
            const done = arguments[arguments.length - 1];
            image.decode().then(() => {
              const canvas = document.createElement('canvas');
              [canvas.width, canvas.height] = [1, image.naturalHeight];
              const paper = canvas.getContext('2d');
              paper.drawImage(image, 0, 0, 1, image.naturalHeight);
              const data = [...paper.getImageData(0, 0, 1, image.naturalHeight).data];
              done(data.filter((_, i) => i % 4 === 0));
            });"""
        return self.browser.execute_async_script(script, track)

    def position_s(self) -> float:
        player = "document.querySelector('#stage .stage').parentElement.sagaPlayer"
        return self.browser.execute_script(f"return {player}.audio.currentTime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def person(folder: Path) -> Iterator[Person]:
    model = tiny_model().save_pretrained(folder / "tiny")
    with serving([str(model)], max_duration_s=60) as address:
        person = Person(address, folder / "downloads")
        yield person
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


def test_restoring_draws_a_new_band_and_the_slider_changes_it(person: Person) -> None:
    first = person.restore()
    rows = person.pixels("output")
    assert np.mean(rows[: len(rows) // 2]) > 20
    person.one("#automatic input").click()  # the slider appears where the user is to choose
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
    canvas = person.one("[data-track=output] .canvas")
    webdriver.ActionChains(person.browser).move_to_element(canvas).click().perform()
    assert person.position_s() == pytest.approx(DURATION_S / 2, abs=0.05)
    heads = [head.rect["x"] for head in person.all(".playhead")]
    assert heads[0] == heads[1]


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

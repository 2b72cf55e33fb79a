"""The listening page in a real browser, from disk: what is heard, where, and what is saved.

Needs `pip install selenium`, and Chromium with its driver (in Debian `apt-get install chromium
chromium-driver`). Where one is missing, this is skipped.

What is heard is taken from the page's output on the audio thread, block by block with its frame
number, so that a lost sample, a click or a wrong position shows in the phase of a tone.
"""

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listener import Listener
from tiny_page import COMMON_HZ, DURATION_S, PILOT_HZ, RATE, write_page

from saga_sr.listen import ratings

pytest.importorskip("selenium", reason="needs: pip install selenium")
if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
    pytest.skip("needs chromium and chromedriver on the PATH", allow_module_level=True)

DESK, PHONE = (1440, 900), (390, 844)
AXIS_PX = 34  # left of the spectrogram
WINDOW = RATE // 100  # samples; whole periods of every tone
TRUE_RATING = {"truth": 100, "F1": 71, "F0": 40, "anchor": 12}
LEFT, RIGHT, DOWN = "\ue012", "\ue014", "\ue015"
_WAIT = "setTimeout(arguments[1], arguments[0])"
_TAP = """
const done = arguments[arguments.length - 1];
const {player} = window.sagaListen;
const code = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process(inputs) {
    const silence = new Float32Array(128);
    this.port.postMessage([currentFrame, inputs[0].length ? inputs[0][0].slice() : silence]);
    return true;
  }
});`;
const module = `data:text/javascript,${encodeURIComponent(code)}`; // a blob has no origin here
player.context.audioWorklet.addModule(module).then(() => {
  const tap = new AudioWorkletNode(player.context, "tap");
  window.tape = [];
  tap.port.onmessage = ({data}) => window.tape.push([data[0], [...data[1]]]);
  player.output.connect(tap).connect(player.context.destination);
  done(player.context.sampleRate);
}, (error) => done(String(error)));
"""
_BRIGHTNESS = """
const canvas = document.querySelector(".stage canvas"), paper = canvas.getContext("2d");
const rows = (canvas.clientHeight - 20) * devicePixelRatio;
return arguments[0].map((hz) => Math.max(...[-2, -1, 0, 1, 2].map((away) =>
  paper.getImageData(canvas.width / 2, Math.round(rows * (1 - hz / 22050)) + away, 1, 1).data[0])));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page with spaces 雨"))


Visit = Callable[..., Listener]


@pytest.fixture
def visit(page: Path, tmp_path: Path) -> Iterator[Visit]:
    """Opens the page in a new browser; all are closed in the end."""
    listeners: list[Listener] = []

    def opened(path: Path = page, **changes: Any) -> Listener:
        folder = tmp_path / f"downloads{len(listeners)}"
        folder.mkdir()
        listeners.append(Listener(path, folder, **changes))
        return listeners[-1]

    yield opened
    for listener in listeners:
        listener.close()


# What Chromium's audio thread misses on a busy machine it misses at random; a fault of the page is
# there every time.
by_ear = pytest.mark.flaky(reruns=3)


@pytest.fixture
def listener(visit: Visit) -> Listener:
    """Somebody at a desk, with the first clip loaded."""
    listener = visit()
    listener.wait_for_clip()
    return listener


def wait(listener: Listener, milliseconds: int) -> None:
    listener.browser.execute_async_script(_WAIT, milliseconds)


def play_a_loop(listener: Listener) -> None:
    """From 0.2 to 1.2 s: whole periods of every tone, so a loop of it is an endless tone."""
    listener.run("player.setRegion({start: 0.2, end: 1.2})")
    listener.press(" ")  # a browser lets only a person start sound
    assert listener.browser.execute_async_script(_TAP) == RATE
    listener.until(lambda: listener.run("return window.tape.length") > 150)
    listener.run("window.tape = []")  # the first blocks come while the tap is put in
    listener.until(lambda: listener.run("return window.tape.length"))


def heard(listener: Listener) -> tuple[int, np.ndarray]:
    """(first frame, samples) of what was played since. A browser skips blocks of silence; a block
    that is missing where there was sound would be a hole, and a click."""
    tape = listener.run("return window.tape")
    first, last = tape[0][0], tape[-1][0]
    samples = np.zeros(last - first + 128)
    for frame, block in tape:
        samples[frame - first : frame - first + 128] = block
    return first, samples


def tone_of(samples: np.ndarray, first_frame: int, hz: float) -> np.ndarray:
    """Complex amplitude of a tone over time, against the audio clock."""
    time = (first_frame + np.arange(len(samples))) / RATE
    mixed = samples * np.exp(-2j * np.pi * hz * time)
    return np.convolve(mixed, np.full(WINDOW, 2 / WINDOW), mode="valid")


def begin(listener: Listener, rater: str = "Ann") -> None:
    """Start a test, from wherever."""
    listener.click("[data-mode=blind]")
    listener.one("#rater").send_keys(rater)
    listener.click("#start")
    listener.wait_for_clip()


def order(listener: Listener) -> list[str]:
    return listener.run("return view.session.trials[view.session.at].order")


def saved_csv(listener: Listener) -> Path:
    listener.click("#save")
    return listener.until(lambda: next(listener.downloads.glob("ratings-*.csv"), None))


@by_ear
def test_switching_has_no_gap_and_no_click_and_keeps_the_position(listener: Listener) -> None:
    play_a_loop(listener)
    expected = []
    for key in "2431323":
        listener.press(key)
        expected.append(listener.run("return view.shown[view.selected].name"))
        before = listener.run("return [player.position, player.context.currentTime]")
        wait(listener, 250)
        after = listener.run("return [player.position, player.context.currentTime]")
        assert after[1] - before[1] > 0.1  # the clock runs
        passed = (after[1] - before[1]) % 1.0
        assert (after[0] - before[0]) % 1.0 == pytest.approx(passed, abs=1e-6)
    first, samples = heard(listener)

    common = tone_of(samples, first, COMMON_HZ)
    assert np.abs(common) == pytest.approx(np.abs(common[0]), rel=0.01)  # level-matched, too
    assert np.abs(np.angle(common / common[0])).max() < 0.01  # a lost sample would be 0.07
    position, clock = after
    expected_phase = 2 * np.pi * COMMON_HZ * (position - clock) - np.pi / 2
    assert np.abs(np.angle(common[-1] / np.exp(1j * expected_phase))) < 0.02

    pilots = {name: np.abs(tone_of(samples, first, hz))[::441] for name, hz in PILOT_HZ.items()}
    names = ["input" if max(at) < 0.01 else list(pilots)[int(np.argmax(at))]
             for at in zip(*pilots.values(), strict=True)]  # fmt: skip
    changes = [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    assert changes[-len(expected) :] == expected


@by_ear
def test_pause_jump_and_loop_fade_and_never_click(listener: Listener) -> None:
    play_a_loop(listener)
    for act in (
        "player.seek(0.71)",
        "player.pause()",
        "player.play()",
        "player.setRegion({start: 0.3037, end: 0.4241})",
        "player.setRegion(null)",
        "player.setLoop(false)",
        "player.pause()",
    ):
        listener.run(act)
        wait(listener, 200)
    _, samples = heard(listener)
    assert np.abs(samples).max() > 0.1
    assert np.abs(samples[-256:]).max() == 0
    # The tones of F0 themselves bend by at most this from sample to sample; a step of a tenth of
    # the amplitude would be ten times as much.
    tones = ((0.25, COMMON_HZ), (0.05, PILOT_HZ["F0"]))
    bend = sum(level * (2 * np.pi * hz / RATE) ** 2 for level, hz in tones)
    assert np.abs(np.diff(samples, 2)).max() < 1.5 * bend


def test_keys_move_and_choose(listener: Listener) -> None:
    names = [row.get_attribute("data-version") for row in listener.all("[data-version]")]
    assert names == ["input", "F0", "F1", "noise", "truth"]
    listener.press("5")
    assert listener.one("[aria-selected=true]").get_attribute("data-version") == "truth"
    assert listener.one(".nameplate").text == "truth"
    listener.press(DOWN)  # around the end
    assert listener.one("[aria-selected=true]").get_attribute("data-version") == "input"
    listener.press(RIGHT)
    assert listener.position_s() == pytest.approx(1.0)
    listener.press(LEFT)
    assert listener.position_s() == 0
    listener.press(" ")
    listener.until(lambda: listener.position_s() > 0.05)
    listener.press(" ")
    held = listener.position_s()
    listener.press("3")
    assert listener.position_s() == held
    listener.press("n")
    listener.until(lambda: listener.text("h2") == "two")
    listener.wait_for_clip()
    listener.until(lambda: listener.all("[aria-selected=true]"))
    assert listener.one("[aria-selected=true]").get_attribute("data-version") == "F1"  # kept


def test_click_plays_from_there_and_drag_loops_a_region(listener: Listener) -> None:
    from selenium.webdriver import ActionChains

    canvas = listener.one(".stage canvas")
    width = canvas.size["width"] - AXIS_PX
    mouse = ActionChains(listener.browser)
    mouse.move_to_element_with_offset(canvas, round(width / 4 + AXIS_PX / 2), 10).click().perform()
    assert listener.run("return player.isPlaying")
    assert listener.run("return player._deck.offset") == pytest.approx(0.75 * DURATION_S, abs=0.01)
    mouse = ActionChains(listener.browser)
    mouse.move_to_element_with_offset(canvas, -100, 0).click_and_hold()
    mouse.move_by_offset(60, 5).move_by_offset(60, 0).release().perform()
    region = listener.run("return player.region")
    expected_s = 120 * DURATION_S / width
    assert region["end"] - region["start"] == pytest.approx(expected_s, abs=0.01)
    assert region["start"] <= listener.position_s() <= region["end"]
    listener.click(".clear")
    assert listener.run("return player.region") is None


def test_spectrogram_and_metrics_of_the_chosen_version_are_shown(listener: Listener) -> None:
    for key, name in (("2", "F0"), ("3", "F1"), ("5", "truth")):
        listener.press(key)
        tones = [COMMON_HZ, *PILOT_HZ.values()]
        common, *pilots = listener.browser.execute_script(_BRIGHTNESS, tones)
        assert common > 150
        assert list(PILOT_HZ)[int(np.argmax(pilots))] == name
    rows = {row.get_attribute("data-version"): row.text for row in listener.all("[data-version]")}
    assert "1.50" in rows["F0"]
    assert "−6.0 dB" in rows["F1"]
    assert [cell.text for cell in listener.all(".versions td.best")] == ["1.00", "2.00"]
    facts = listener.one(".facts").text
    assert "4 kHz" in facts
    assert "speech" in facts
    assert listener.one(".text").text == "“<b>雨</b> & a script: </script>”"
    assert "different rules" in listener.one(".note").text
    assert len(listener.all(".charts path.curve")) == 3


def test_filters_choose_clips(listener: Listener) -> None:
    listener.one(".chips button:nth-child(2)").click()
    listener.wait_for_clip()
    assert [row.text.split("\n")[0] for row in listener.all(".cliplist li")] == ["two"]
    assert listener.one("h2").text == "two"


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_blind_test_is_rated_saved_and_counted(visit: Visit, size: tuple[int, int]) -> None:
    listener = visit(size=size)
    listener.wait_for_clip()
    listener.click("[data-mode=blind]")
    listener.click("#start")
    assert "name" in listener.one(".error").text
    begin(listener, '李 "Ann", 1')
    shown = listener.one("main").text
    assert not any(name in shown for name in ("F0", "F1", "anchor", "truth", "speech", "kHz"))
    assert listener.all(".versions") == []
    assert not listener.one("#next").is_enabled()
    given = {}
    while listener.run("return view.mode") == "test":
        listener.wait_for_clip()
        listener.until(lambda: listener.all(".slider input"))
        clip = listener.run("return view.clip.name")
        for index, name in enumerate(order(listener), start=1):
            listener.click(f".slider[data-index='{index}'] .stimulus")
            listener.run(
                "const slider = document.activeElement; slider.value = arguments[0];"
                "slider.dispatchEvent(new Event('input', {bubbles: true}))",
                TRUE_RATING[name] - 1,
            )
            listener.press(RIGHT)  # the slider has the focus, so a key goes on from there
            given[clip, name] = TRUE_RATING[name]
        listener.click("#next")
    assert len(given) == 8
    path = saved_csv(listener)
    found, _ = ratings.read_ratings([path])
    assert {(one.clip, one.system): one.rating for one in found} == given
    assert {one.rater for one in found} == {'李 "Ann", 1'}
    assert "| truth | 100.0" in ratings.report(found)
    assert listener.errors() == []


def test_answers_survive_a_reload_and_the_order_stays(listener: Listener) -> None:
    begin(listener)
    listener.click(".slider[data-index='1'] .stimulus")
    listener.press(RIGHT)
    before = listener.run("return view.session")
    listener.open()
    listener.wait_for_clip()
    listener.click("[data-mode=blind]")
    listener.click(".resume button")
    listener.wait_for_clip()
    after = listener.run("return view.session")
    assert after["trials"] == before["trials"]
    assert after["trials"][0]["ratings"][0] == 51
    assert listener.one(".slider[data-index='1'] output").text == "51"


def test_preference_of_two(listener: Listener) -> None:
    listener.click("[data-mode=blind]")
    listener.click("input[value=preference]")
    begin(listener)
    while listener.run("return view.mode") == "test":
        listener.wait_for_clip()
        listener.until(lambda: listener.all(".answer"))
        for stimulus in range(2):
            listener.click(f".stimulus[data-index='{stimulus}']")
        pair = order(listener)
        better = min(pair, key=["truth", "F1", "F0"].index)
        listener.all(".answer")[0 if pair[0] == better else 2].click()
        listener.click("#next")
    path = saved_csv(listener)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    assert len(rows) == 2 * 3 * 2  # clips, pairs, sides
    won = ratings.preference(ratings.read_ratings([path])[0], "F1", "F0")
    assert won is not None
    assert won.mean == 100


def test_orders_are_shuffled(listener: Listener) -> None:
    orders = set()
    for _ in range(12):
        begin(listener)
        orders |= {tuple(trial["order"]) for trial in listener.run("return view.session.trials")}
    assert len(orders) > 8  # of 24
    assert len({one.index("truth") for one in orders}) == 4


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_nothing_is_wider_than_the_screen_nor_too_small_to_touch(
    visit: Visit, size: tuple[int, int]
) -> None:
    listener = visit(size=size)

    def check() -> None:
        listener.wait_for_clip()
        assert listener.run("return document.documentElement.scrollWidth") <= size[0]
        small = listener.run(
            """return [...document.querySelectorAll("button, select")].filter((one) => {
                 const box = one.getBoundingClientRect();
                 return box.height > 0 && (box.height < arguments[0] || box.width < 28);
               }).map((one) => one.outerHTML.slice(0, 80));""",
            36 if size == PHONE else 28,
        )
        assert small == []

    check()
    listener.click("[data-mode=blind]")
    check()
    listener.one("#rater").send_keys("Ann")
    listener.click("#start")
    check()


def test_the_browsers_language_decides_and_the_switch_overrules_it(visit: Visit) -> None:
    listener = visit(language="zh-CN")
    assert listener.text("h1") == "试听"
    assert listener.one("html").get_attribute("lang") == "zh-CN"
    listener.click("button[lang=en]")
    assert listener.text("h1") == "Listening"
    listener.open()
    assert listener.text("h1") == "Listening"
    words = listener.run("return window.sagaListen.words")
    assert list(words["zh"]) == list(words["en"])

    def blanks(text: str) -> list[str]:
        return sorted(part.split("}")[0] for part in text.split("{")[1:])

    unlike = [key for key in words["en"] if blanks(words["en"][key]) != blanks(words["zh"][key])]
    assert unlike == []


def test_a_page_that_was_copied_without_its_folder_says_so(
    visit: Visit, page: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.html"
    shutil.copy(page, alone)
    listener = visit(alone)
    text = listener.until(lambda: listener.all(".error") and listener.text(".error"))
    assert "copy the whole folder" in text
    assert ".js is missing" in text


def test_nothing_is_fetched_from_anywhere(listener: Listener) -> None:
    listener.press("n")
    listener.wait_for_clip()
    names = listener.requests()
    assert sum(name.startswith("file:") and name.endswith(".js") for name in names) == 2
    assert [name for name in names if not name.startswith(("file:", "data:", "blob:"))] == []
    assert listener.errors() == []

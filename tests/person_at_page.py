"""Somebody in front of the page, in a headless Chromium."""

import shutil
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PATIENCE_S = 120


class Person:
    """Somebody in front of the page."""

    def __init__(
        self,
        address: str,
        downloads: Path,
        size: tuple[int, int] = (1440, 900),
        language: str = "en-US",
    ) -> None:
        """Needs selenium, and ``chromium`` and ``chromedriver`` on the PATH.

        Args:
            address: of the page.
            downloads: folder for them.
            size: of what is seen of the page, in CSS pixels; below 600 wide it is a phone.
            language: of the browser.
        """
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (
            "--headless=new",
            "--no-sandbox",
            f"--window-size={size[0]},{size[1] + 200}",
            f"--lang={language}",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
        ):
            options.add_argument(flag)
        preferences = {
            "download.default_directory": str(downloads),
            "intl.accept_languages": language,
        }
        options.add_experimental_option("prefs", preferences)
        self.browser = webdriver.Chrome(
            options, webdriver.ChromeService(shutil.which("chromedriver"))
        )
        self.browser.set_script_timeout(_PATIENCE_S)
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1}
        phone = size[0] < 600
        for command, values in (
            ("Emulation.setDeviceMetricsOverride", screen | {"mobile": phone}),
            ("Emulation.setTouchEmulationEnabled", {"enabled": phone}),
        ):
            self.browser.execute_cdp_cmd(command, values)
        self.browser.get(address)
        self.until(lambda: self.all(".drop-file") and self.all("#run"))

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def until(self, true: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := true()):
            if time.monotonic() > deadline:
                raise TimeoutError(self.status)
            time.sleep(0.1)
        return value

    @property
    def status(self) -> str:
        return self.one(".status-text").text

    def state(self) -> str | None:
        return self.one(".stage").get_attribute("data-state")

    def press(self, key: str) -> None:
        """A key, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(key).perform()

    def heard(self) -> str | None:
        return self.one(".stage").get_attribute("data-heard")

    def is_playing(self) -> bool:
        return "playing" in (self.one(".stage").get_attribute("class") or "").split()

    def load(self, path: Path) -> None:
        self.one(".drop-file").send_keys(str(path))

    def restore(self) -> str:
        """Press the button; the address of the new picture."""
        before = self.picture("output")
        self.until(lambda: self.one("#run").is_enabled())
        self.one("#run").click()
        return self.until(lambda: (new := self.picture("output")) != before and new)

    def photograph(self, path: Path) -> None:
        """The whole page, also what is below the screen's edge, as PNG."""
        picture = self.browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True}
        )
        path.write_bytes(b64decode(picture["data"]))

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

    def click_into(self, track: str) -> None:
        """Move to the middle of the recording."""
        from selenium.webdriver import ActionChains

        canvas = self.one(f"[data-track={track}] .canvas")
        ActionChains(self.browser).move_to_element(canvas).click().perform()

"""Somebody in front of a listening page from disk, in a headless Chromium."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PATIENCE_S = 30


class Listener:
    """Opens ``listen.html``; needs selenium, and chromium and chromedriver on the PATH.

    Args:
        path: of the page.
        size: of what the page is seen through, in CSS pixels.
        language: the browser's.
        downloads: where it saves files.
    """

    def __init__(
        self,
        path: Path,
        downloads: Path,
        size: tuple[int, int] = (1440, 900),
        language: str = "en-US",
    ) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--lang={language}",
            f"--user-data-dir={downloads / 'profile'}",
        ):
            options.add_argument(flag)
        preferences = {
            "download.default_directory": str(downloads),
            "intl.accept_languages": language,
        }
        options.add_experimental_option("prefs", preferences)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.browser = webdriver.Chrome(
            options, webdriver.ChromeService(shutil.which("chromedriver"))
        )
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": size[0],
                "height": size[1],
                "deviceScaleFactor": 2 if size[0] < 800 else 1,
                "mobile": size[0] < 800,
            },
        )
        self.path, self.downloads = path, downloads
        self.open()

    def open(self) -> None:
        self.browser.get(self.path.as_uri())

    def close(self) -> None:
        self.browser.quit()

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """Read at once: the page may draw itself anew between finding and reading."""
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def click(self, selector: str) -> None:
        self.until(lambda: self.one(selector).is_enabled())
        self.one(selector).click()

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(key).perform()

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; ``player`` and ``view`` are the page's."""
        return self.browser.execute_script(
            f"const {{player, view}} = window.sagaListen; {script}", *arguments
        )

    def until(self, true: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := true()):
            if time.monotonic() > deadline:
                raise TimeoutError(self.one("body").text[:500])
            time.sleep(0.05)
        return value

    def wait_for_clip(self) -> None:
        self.until(lambda: self.run("return view.loaded !== null"))

    def position_s(self) -> float:
        return self.run("return player.position")

    def requests(self) -> list[str]:
        """Every address that the page asked for since the last time."""
        messages = [json.loads(one["message"])["message"] for one in self._log("performance")]
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        ours = [one for one in sent if one["documentURL"].startswith("file:")]
        return [one["request"]["url"] for one in ours]

    def errors(self) -> list[str]:
        """What the browser complains about."""
        return [entry["message"] for entry in self._log("browser")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return self.browser.get_log(kind)

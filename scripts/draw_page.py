"""Restore a file on the page in a headless Chromium, as a person would, and take its picture.

    python scripts/draw_page.py --output docs/app.png
    python scripts/draw_page.py RECORDING --language zh-CN --size 390 844 --output phone.png

Without a recording it is the page's own example. Needs what the page's test in a browser needs
(tests/app/test_app_browser.py).
"""

# ruff: noqa: E402  (the path comes first)
import argparse
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
BROWSER_TEST = "tests/app/test_app_browser.py"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from saga_sr.support.errors import UserError, run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recording", type=Path, nargs="?")
    parser.add_argument("--model", default=str(ROOT / "models" / "saga-sr-demo"))
    parser.add_argument("--language", default="en-US", help="of the browser")
    parser.add_argument("--size", type=int, nargs=2, default=(1440, 900), help="in CSS pixels")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.recording and not options.recording.is_file():
        raise UserError(f"{options.recording}: no such file")

    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += [name for name in ("gradio", "selenium") if find_spec(name) is None]
    if missing:
        raise UserError(f"the page's picture needs {', '.join(missing)}: see {BROWSER_TEST}")

    from person_at_page import Person

    from saga_sr.app.serve import serving
    from saga_sr.support.files import atomic_path

    with tempfile.TemporaryDirectory() as downloads, serving([options.model]) as address:
        person = Person(address, Path(downloads), tuple(options.size), options.language)
        try:
            if options.recording:
                person.load(options.recording.resolve())
            else:
                person.one(".drop-example").click()
            person.until(lambda: person.state() == "loaded")
            person.restore()
            person.until(lambda: person.one(".status").get_attribute("data-kind") == "done")
            person.click_into("output")
            with atomic_path(options.output) as temporary:
                person.photograph(temporary)
        finally:
            person.browser.quit()
    print(options.output)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

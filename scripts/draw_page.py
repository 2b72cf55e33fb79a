"""Restore a file on the page in a headless Chromium, as a person would, and take its picture.

    python scripts/draw_page.py RECORDING --output docs/app.png

Needs what the page's test in a browser needs (tests/test_app_browser.py).
"""

# ruff: noqa: E402  (the path comes first)
import argparse
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from saga_sr.support.errors import UserError, run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--model", default=str(ROOT / "models" / "saga-sr-demo"))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if not options.recording.is_file():
        raise UserError(f"{options.recording}: no such file")

    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += [name for name in ("gradio", "selenium") if find_spec(name) is None]
    if missing:
        raise UserError(f"the page's picture needs {', '.join(missing)}: tests/test_app_browser.py")

    from person_at_page import Person

    from saga_sr.app.serve import serving
    from saga_sr.support.files import atomic_path

    with tempfile.TemporaryDirectory() as downloads, serving([options.model]) as address:
        person = Person(address, Path(downloads))
        try:
            person.load(options.recording.resolve())
            person.until(lambda: person.state() == "loaded")
            person.restore()
            person.click_into("output")
            person.until(lambda: person.status.startswith(("Restored", "Passed")))
            with atomic_path(options.output) as temporary:
                temporary.write_bytes(person.browser.get_screenshot_as_png())
        finally:
            person.browser.quit()
    print(options.output)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

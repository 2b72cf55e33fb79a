"""docs/method.md keeps its promise: twelve files, about 2,550 lines, all that it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/method.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \d+ \| `([\w/.]+)` \| .* \| (.*) \|$", PAGE, flags=re.MULTILINE)


def test_the_reading_order_is_short() -> None:
    files = [ROOT / name for name, _ in ROWS]
    assert 10 <= len(files) <= 12
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 2560


def test_what_the_page_names_is_where_it_says() -> None:
    for name, start in ROWS:
        source = (ROOT / name).read_text(encoding="utf-8")
        for definition in re.findall(r"`([\w.]+)`", start):
            assert re.search(rf"(class|def) {definition.split('.')[-1]}\b", source), definition
    whole = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "saga_sr").rglob("*.py"))
    for definition in re.findall(r"`(\w+)` \(`saga_sr/", PAGE):
        assert re.search(rf"(class|def) {definition}\b", whole), definition
    for path in re.findall(r"`(saga_sr/[\w/.]+)`", PAGE):
        assert (ROOT / path).is_file(), path

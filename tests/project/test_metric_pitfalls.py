"""docs/metrics.md holds the numbers that its script produces."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "metric_pitfalls", ROOT / "benchmarks/quality/metric_pitfalls.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?\d+\.\d+", text)]


@pytest.mark.parametrize("name", ["definitions", "hiss", "blur", "noise and rhythm", "mix-down"])
def test_pitfalls_page_holds_what_the_script_computes(script: ModuleType, name: str) -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    written = page.split(script.BEGIN.format(name))[1].split(script.END.format(name))[0].strip()
    computed = script.TABLES[name]()
    assert re.sub(r"[\d.-]+", "#", written) == re.sub(r"[\d.-]+", "#", computed)
    assert numbers(written) == pytest.approx(numbers(computed), abs=0.02)


def test_pitfalls_insert_replaces_the_table_and_nothing_else(script: ModuleType) -> None:
    begin, end = script.BEGIN.format("blur"), script.END.format("blur")
    page = f"before\n{begin}\nold\n{end}\nafter"
    assert script.insert(page, "blur", "new") == f"before\n{begin}\n\nnew\n\n{end}\nafter"

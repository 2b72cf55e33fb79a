"""`make gpu-check`: rehearsed on the CPU to its last line; what it refuses, and what survives."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import ROOT, tiny_vae
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks/speed"), str(ROOT / "benchmarks/reliability")]

# ruff: noqa: E402  (the paths come first)
from benchmarks.gpu import check
from benchmarks.gpu.cards import CARDS, card_named
from benchmarks.gpu.report import Report
from benchmarks.speed import counts
from saga_sr.config import parse_model_config
from saga_sr.support.errors import UserError

PROGRAM = [sys.executable, str(ROOT / "benchmarks/gpu/check.py")]


def test_a_rehearsal_runs_every_section_to_its_last_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "--rehearse", str(tmp_path)], capture_output=True, text=True, timeout=3000
    )
    page = (tmp_path / "rehearsal-on-a-cpu.md").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + page
    from benchmarks.gpu.machine import Rehearsal
    from benchmarks.gpu.sections import SECTIONS

    titles = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
    assert titles == [section.title for section in SECTIONS]
    assert sum(section.budget_s for section in SECTIONS) <= 600
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| .* \|$", line)]
    verdicts = {row[-1].strip(" |") for row in rows if len(row) == 5 and row[0] != "| section"}
    assert verdicts == {"pass", "rehearsed", "---:"}
    assert all(what in page for what in Rehearsal.cannot)
    assert "no figure here is one of a GPU" in page
    assert str(ROOT) not in page
    assert str(tmp_path) not in page
    assert list(tmp_path.iterdir()) == [tmp_path / "rehearsal-on-a-cpu.md"]


def test_without_a_gpu_it_says_so_before_torch_is_imported() -> None:
    if any(Path("/dev", name).exists() for name in check.GPU_DEVICES):
        pytest.skip("this machine has a GPU's driver")
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{PROGRAM[1]!r}]\n"
        "try:\n"
        f"    runpy.run_path({PROGRAM[1]!r}, run_name='__main__')\n"
        "finally:\n"
        "    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.strip() == "False"
    assert done.stderr.startswith("error: gpu-check: this machine has no CUDA GPU")
    assert len(done.stderr.splitlines()) == 1


def test_a_driver_that_torch_cannot_use_is_told_too() -> None:
    def look() -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    with pytest.raises(UserError, match="Torch not compiled with CUDA enabled"):
        check.look(SimpleNamespace(look=look))


# --- sections that fail -------------------------------------------------------------------------
def _fine(_: Any, sizes: float, report: Report) -> None:
    report.agrees("two ways", sizes, 1.0)
    report.at_least("a speed", 1.0, 2.0, " x")


def _raises(*_: Any) -> None:
    raise RuntimeError("CUDA error: an illegal memory access\nand more of it")


def _dies(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hangs_with_a_child(path: Path, *_: Any) -> None:
    if os.fork() == 0:
        path.write_text(str(os.getpid()))
    time.sleep(600)


def _run(tmp_path: Path, *functions: Any, sizes: float = 0.5, rehearsed: bool = False) -> Any:
    facts = SimpleNamespace(name="NVIDIA Test", details="a test")
    page = check.Page(
        tmp_path / "page.md", SimpleNamespace(facts=facts, cannot=("x",)), rehearsed, "test"
    )
    sections = [SimpleNamespace(title=str(k), run=f, budget_s=3.0) for k, f in enumerate(functions)]
    check.run_sections(page, sections, sizes, 1.0)
    return page


def test_sections_that_raise_die_or_hang_are_recorded_and_the_others_run(tmp_path: Path) -> None:
    child = tmp_path / "child"
    page = _run(tmp_path, _raises, _dies, partial(_hangs_with_a_child, child), _fine)
    text = page.path.read_text(encoding="utf-8")
    assert not page.is_proved
    assert "| 0 | the whole section | RuntimeError: CUDA error: an illegal memory access |" in text
    assert "| 1 | the whole section | its process ended with exit code -9 |" in text
    assert "| 2 | the whole section | not done after its 3 s |" in text
    assert "| 3 | two ways | 0.5 | at most 1 | pass |" in text
    assert not Path("/proc", child.read_text(), "exe").exists()  # nothing is left over


def test_a_missed_speed_is_shown_and_results_that_differ_are_an_error(tmp_path: Path) -> None:
    page = _run(tmp_path, _fine)
    assert page.is_proved
    assert "| a speed | 1 x | at least 2 x | miss |" in page.text()
    page = _run(tmp_path, _fine, sizes=1.5, rehearsed=True)
    assert not page.is_proved
    assert "| two ways | 1.5 | at most 1 | WRONG |" in page.text()
    assert "| a speed | 1 x | at least 2 x | rehearsed |" in page.text()


def test_no_section_begins_after_the_ten_minutes(tmp_path: Path) -> None:
    page = _run(tmp_path)
    page.began = time.monotonic() - check.TOTAL_S
    check.run_sections(page, [SimpleNamespace(title="late", run=_fine, budget_s=9)], 0.5, 1.0)
    assert page.done[0][1].error == "not begun: the ten minutes are over"
    assert not page.is_proved


# --- cards and counts ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312.0), ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA L4", 121.0), ("NVIDIA L40S", 362.05),
    ],
)  # fmt: skip
def test_cards_are_known_by_torchs_name(name: str, tflops: float) -> None:
    card = card_named(name)
    assert card is not None
    assert card.bf16_tflops == tflops


@pytest.mark.parametrize(
    "name",
    ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "Tesla T4",
     "NVIDIA H100 80GB HBM3 MIG 3g.40gb"],
)  # fmt: skip
def test_a_cousin_or_a_share_of_a_card_is_not_taken_for_it(name: str) -> None:
    assert card_named(name) is None


def test_every_card_has_half_the_rate_in_tf32() -> None:
    assert all(abs(c.bf16_tflops / c.tf32_tflops - 2) < 0.05 for c in CARDS)


@pytest.mark.parametrize(
    ("card", "name"),
    [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3.md"), ("NVIDIA L4", "nvidia-l4.md")],
)
def test_a_page_is_named_after_the_card(card: str, name: str) -> None:
    assert check.page_name(card) == name


def test_counts_on_the_meta_device_are_those_of_a_real_pass() -> None:
    config = parse_model_config(tiny_vae())
    meta = counts.count(config)
    with sdpa_kernel(SDPBackend.MATH):  # the CPU's own kernel is not counted
        real = counts.count(config, "cpu")
    for part in ("dit_f0", "dit_f2", "encoder", "decoder"):
        assert getattr(meta, part).flops == getattr(real, part).flops > 0
    assert meta.dit_f2.flops > meta.dit_f0.flops


def test_expected_seconds_grow_with_forwards_and_shrink_with_the_card() -> None:
    costs = counts.Costs(*[counts.Cost(10**12)] * 3, counts.Cost(0, 10**9))
    card = replace(CARDS[0], bf16_tflops=100.0, tf32_tflops=50.0, memory_gb_s=1000.0)
    dit_s, vae_s = counts.expected_s(costs, 4, card, 0.5, 0.5)
    assert dit_s == pytest.approx(4 / 50)
    assert vae_s == pytest.approx(1 / 25 + 1 / 500)

"""A wheel built from the repository works when it is installed elsewhere, from any folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import encode, melody
from test_packaging import ROOT, tracked

from saga_sr.cli import COMMANDS, usage


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into, beside this environment's packages."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in tracked():
        target = folder / "source" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-deps", "--no-index", "--quiet"]
    build = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", "dist", "./source"]
    subprocess.run([*pip, *build], cwd=folder, check=True)
    (wheel,) = (folder / "dist").glob("saga_sr-*.whl")
    subprocess.run(
        [*pip, "install", *offline, "--target", "site", str(wheel)], cwd=folder, check=True
    )
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(site / "bin" / "saga-sr"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_one_command_restores_a_memo_from_any_folder(site: Path, tmp_path: Path) -> None:
    dull = melody(1.0, channels=2)
    encode(tmp_path / "old.m4a", dull, "aac")
    done = run(site, tmp_path, "upsample", "old.m4a", "--num_steps", "2")
    assert done.returncode == 0, done.stderr
    restored, rate = soundfile.read(tmp_path / "old.restored.wav", always_2d=True)
    assert (restored.shape, rate) == ((44100, 2), 44100)
    assert np.isfinite(restored).all()
    again = run(site, tmp_path, "upsample", "old.m4a", "--num_steps", "2")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_configs_come_with_the_wheel(site: Path, tmp_path: Path) -> None:
    code = (
        "from saga_sr.config import load_model_config\n"
        "for size in ('', '_small', '_demo'):\n"
        "    load_model_config(f'saga_model_config{size}.json')\n"
        "import saga_sr\n"
        "print(saga_sr.__file__)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command: str, site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
    assert f"  {command} " in usage()


def test_a_command_that_is_none_is_one_message(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "upsmaple", "old.wav")
    assert done.returncode == 2
    assert done.stderr == (f"error: upsmaple: no such command; known: {', '.join(COMMANDS)}\n")


def test_the_overview_comes_without_torch() -> None:
    code = (
        "import sys\n"
        "from saga_sr.cli import main\n"
        "sys.argv = ['saga-sr', '--help']\n"
        "assert main() == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: saga-sr")


def test_the_wheel_carries_what_it_shows_and_no_tests(site: Path) -> None:
    shown = {path.name for path in (ROOT / "saga_sr" / "app" / "static").iterdir()}
    assert shown == {path.name for path in (site / "saga_sr" / "app" / "static").iterdir()}
    assert not (site / "tests").exists()

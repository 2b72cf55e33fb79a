"""The promises of the repository as a package: commands, pins, start-up time, clean files."""

import ast
import re
import resource
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ("requirements.txt", "requirements-text.txt", "requirements-nodeps.txt")
EXTRA_REQUIREMENTS = (
    "requirements-app.txt",
    "requirements-captions.txt",
    "requirements-dev.txt",
    "requirements-metrics.txt",
    "requirements-scores.txt",
    "requirements-stages.txt",
)
PINS = (*REQUIREMENTS, *EXTRA_REQUIREMENTS, "constraints.txt")
PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)==[\w.+!]+")
HELP_SECONDS = 1.0

# Like the benchmarks: a measurement for developers, which may start slowly.
MEASUREMENTS = {"measure_band_std.py"}
# Imported where they are used, with a message that says what to install.
EXTRAS = {"wandb", "bitsandbytes", "visqol", "openl3", "selenium"}
# Import names that are not the name of their package.
PACKAGE_OF = {"PIL": "pillow", "skimage": "scikit-image", "huggingface_hub": "huggingface-hub"}


def tracked(*patterns: str) -> list[Path]:
    """Files under version control; a downloaded archive has none."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def command_lines() -> list[Path]:
    """Every program of the repository that a user starts."""
    commands = sorted((ROOT / "saga_sr").rglob("__main__.py"))
    assert len(commands) >= 6
    scripts = [path for folder in (ROOT, ROOT / "scripts") for path in sorted(folder.glob("*.py"))]
    programs = [path for path in scripts if "__name__ ==" in path.read_text(encoding="utf-8")]
    return commands + [path for path in programs if path.name not in MEASUREMENTS]


def test_scripts_find_the_package_from_any_folder() -> None:
    """`python benchmarks/speed/x.py` puts its own folder on the path, not the repository's."""
    scripts = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    lost = []
    for path in scripts:
        source = path.read_text(encoding="utf-8")
        is_program = "__name__ ==" in source
        own = "from saga_sr" in source or "from benchmarks" in source
        if is_program and own and "sys.path" not in source:
            lost.append(path.name)
    assert len(scripts) > 20
    assert lost == []


def test_every_benchmark_is_on_the_page_that_surveys_them():
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    rooms = re.split(r"^## (\w+)/", page, flags=re.MULTILINE)[1:]
    listed = {
        f"{room}/{name}"
        for room, text in zip(rooms[::2], rooms[1::2], strict=True)
        for name in re.findall(r"^\| `(\w+\.py)`", text, flags=re.MULTILINE)
    }
    benchmarks = ROOT / "benchmarks"
    programs = {
        str(path.relative_to(benchmarks))
        for path in benchmarks.rglob("*.py")
        if "__name__ ==" in path.read_text(encoding="utf-8")
    }
    assert listed == programs


@cache
def help_of(program: str) -> tuple[str, float, bool]:
    """Help text of a program, its processor seconds, and whether torch was imported for it."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{program!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({program!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code in (0, None), stop.code\n"
        "print('torch imported:', 'torch' in sys.modules)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return run.stdout, seconds, "torch imported: True" in run.stdout


def flags_of(program: Path) -> set[str]:
    return set(re.findall(r"--\w+", help_of(str(program.relative_to(ROOT)))[0]))


# --- commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", command_lines(), ids=lambda path: str(path.relative_to(ROOT)))
def test_help_answers_fast_and_without_torch(path):
    text, seconds, torch_imported = help_of(str(path.relative_to(ROOT)))
    assert text.startswith("usage:")
    assert not torch_imported
    # Processor time: on a busy machine the clock would measure the others.
    assert seconds < HELP_SECONDS


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text(encoding="utf-8")


# --- requirements -----------------------------------------------------------------------------


def requirement_lines(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-c "))]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", PINS)
def test_requirements_are_exact_versions_named_once(name):
    lines = requirement_lines(name)
    assert lines
    assert [line for line in lines if not PINNED.fullmatch(line)] == []
    packages = [canonical(line.split("==")[0]) for line in lines]
    assert len(set(packages)) == len(packages)


def test_requirements_and_constraints_name_different_packages():
    packages = [canonical(line.split("==")[0]) for f in PINS for line in requirement_lines(f)]
    assert sorted(packages) == sorted(set(packages))


def test_installed_versions_are_the_pinned_ones():
    from importlib.metadata import version

    pins = dict(line.split("==") for name in REQUIREMENTS for line in requirement_lines(name))
    installed = {name: version(name).split("+")[0] for name in pins}
    assert installed == pins


def imported_packages(path: Path) -> set[str]:
    """Top-level names of all absolute imports in a file, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_every_import_is_in_the_requirements():
    python_files = tracked("*.py")
    own = {path.stem for path in python_files} | {"saga_sr", "benchmarks"}
    listed = {canonical(line.split("==")[0]) for f in PINS[:-1] for line in requirement_lines(f)}
    imported = set().union(*(imported_packages(path) for path in python_files))
    foreign = imported - own - set(sys.stdlib_module_names) - EXTRAS
    assert {
        name for name in foreign if canonical(PACKAGE_OF.get(name, name)) not in listed
    } == set()


def test_tools_check_the_oldest_python():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["ruff"]["target-version"] == "py311"
    assert settings["mypy"]["python_version"] == "3.11"


# --- clean files ------------------------------------------------------------------------------

# Spelt in pieces, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/" + r"\w")
REGISTRY = re.compile(
    "|".join(("pypi" + r"\.org", "python" + r"hosted\.org", "deb" + r"ian\.org/debian"))
    + "|"
    + "|".join(("registry" + r"\.npmjs", "--(?:extra-)?index" + "-url", "--find" + "-links"))
)


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine path", "registry"])
def test_tracked_files_name_no_machine_path_and_no_registry_host(pattern):
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and pictures
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


def test_tracked_files_hold_no_audio_corpus_and_stay_small():
    large = [path for path in tracked() if path.stat().st_size > 24 * 2**20]
    assert large == []
    assert not [path for path in tracked() if path.is_relative_to(ROOT / "corpus")]

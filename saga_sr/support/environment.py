"""What a run was made with: versions, machine, git state, flags."""

import platform
import subprocess
import sys
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchaudio",
    "lightning",
    "stable-audio-tools",
    "transformers",
    "numpy",
    "scipy",
    "soundfile",
    "soxr",
)


def describe_environment() -> dict[str, Any]:
    """Versions and commit, as JSON values."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "command": sys.argv,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions,
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any]:
    """Commit of the code and whether it was changed since; empty outside a git checkout."""
    here = Path(__file__).parent
    try:
        run = [
            subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True)
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": run[0].stdout.strip(), "uncommitted_changes": bool(run[1].stdout.strip())}


def plain_options(options: Namespace) -> dict[str, Any]:
    """The flags as JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in sorted(vars(options).items())}

"""Puts the shipped model and the configs, which lie beside the package, into the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODEL = "models/saga-sr-demo"
SHIPPED = tuple(f"{MODEL}/{name}" for name in ("config.json", "model.safetensors", "sources.json"))
ROOT = Path(__file__).parent


class BuildWithShipped(build_py):
    """`saga_sr.support.shipped` finds them below ``saga_sr/shipped``."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        names = [*SHIPPED, *(path.name for path in sorted(ROOT.glob("saga_model_config*.json")))]
        for name in names:
            target = Path(self.build_lib) / "saga_sr" / "shipped" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)


setup(cmdclass={"build_py": BuildWithShipped})

"""Everything is declared in pyproject.toml but for this: a wheel carries the experiment folders of the playground."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
KEPT = (".py", ".md", ".json", ".csv")  # weights and pictures stay where they are
LEFT_OUT = ("outputs", "__pycache__")


class BuildWithPlayground(build_py):
    """Copies the playground into the package, where `config/playground.py` looks for it."""

    def run(self):
        """Build the package; a checkout in editable mode has its playground already."""
        super().run()
        if getattr(self, "editable_mode", False):
            return
        target = Path(self.build_lib) / "cvpods_ext" / "_playground"
        for file in sorted((ROOT / "playground").rglob("*")):
            name = file.relative_to(ROOT / "playground")
            if file.is_file() and file.suffix in KEPT and not set(LEFT_OUT) & set(name.parts):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / name)


setup(cmdclass={"build_py": BuildWithPlayground})

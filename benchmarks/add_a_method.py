"""Carry out docs/add_a_method.md as it stands: write its files, run its commands, put their output into the page.

    python benchmarks/add_a_method.py            everything, minutes on two CPU cores; writes the page
    python benchmarks/add_a_method.py --steps 40 --write    so many steps on 60 pictures, for the form
    python benchmarks/add_a_method.py --steps 2  a few steps, nothing is written: for the test

The mini playground is copied, so that nothing but the page changes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "add_a_method.md"
BEGIN, END = "<!-- output:begin (benchmarks/add_a_method.py) -->", "<!-- output:end -->"
NAME = "mask_rcnn.narrow.fpn64.box.96.class_balanced"
NEEDED = ("plain", "trunk")  # folders of the mini playground that the page uses


def code_blocks(page: str) -> dict[str, str]:
    """The files that the page writes: name -> content."""
    return dict(re.findall(r"^```python (\S+)\n(.*?)^```$", page, re.S | re.M))


def commands(page: str) -> list[str]:
    """The shell commands of step 6, one a line."""
    block = re.search(r"## 6\..*?^```sh\n(.*?)^```$", page, re.S | re.M)
    assert block, f"{PAGE} has no commands under its step 6"
    return block[1].splitlines()


def prepare(root: Path, page: str) -> Path:
    """A copy of what step 1 copies from, and the folder with the files of steps 2 to 5; returns the folder."""
    mini = root / "playground" / "mini"
    for name in NEEDED:
        source = ROOT / "playground" / "mini" / f"{NAME.rpartition('.')[0]}.{name}"
        shutil.copytree(source, mini / source.name, ignore=shutil.ignore_patterns("outputs", "results*"))
    folder = mini / NAME
    folder.mkdir()
    for name, content in code_blocks(page).items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def run(command: str, folder: Path, steps: int) -> str:
    """One command of the page in the folder; its standard output. With `steps` a training run is that short."""
    arguments = command.split()
    if steps and arguments[0] in ("pods_train", "pods_test"):
        arguments += [f"schedule.iters={steps}", f"schedule.warmup_iters={steps // 2}"]
    if steps and arguments[:2] == ["pods_data", "synth"]:
        arguments += ["--images-train", "60", "--images-val", "12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PODS_DATASETS": "", "PODS_OUTPUT": "", "COLUMNS": "100"}
    if arguments[0].startswith("pods_"):
        code = f"from cvpods_ext.cli.{arguments[0].removeprefix('pods_')} import main; main()"
        arguments = [sys.executable, "-c", code, *arguments[1:]]
    elif arguments[0] == "python":
        arguments[0] = sys.executable
    done = subprocess.run(arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> int:
    """Run the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=0, help="train so many steps only, and leave the page alone")
    parser.add_argument("--write", action="store_true", help="write the page even with --steps")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    shown, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        folder = prepare(Path(root), page)
        for command in commands(page):
            began = time.monotonic()
            output = run(command, folder, options.steps)
            shown.append(f"$ {command}    # {time.monotonic() - began:.0f} s")
            if command.startswith(("python -m pytest", "pods_compare")):
                start = output.rfind("\n", 0, output.find(", intervals")) + 1 if options.steps else 0
                shown.append(output[start:].rstrip())
    text = "\n".join(line.rstrip() for line in "\n".join(shown).splitlines()).replace(root, "")
    if options.steps and not options.write:
        print(text)
        return 0
    minutes = (time.monotonic() - started) / 60
    said = f"{minutes:.1f} minutes in all:"
    if options.steps:
        said = (
            f"With `--steps {options.steps} --write`, on 60 pictures: the form of the output, nothing about it. The\n"
            "table before the intervals is left out, since it names every setting that `--steps` changed:"
        )
    block = f"{BEGIN}\n{said}\n\n```\n{text}\n```\n{END}"
    head, rest = page.split(BEGIN)
    PAGE.write_text(head + block + rest.split(END)[1], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

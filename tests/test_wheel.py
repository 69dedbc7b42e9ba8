"""What `pip install cvpods_ext-*.whl` gives: the package with its playground, and no checkout."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "mask_rcnn.narrow.fpn64.box.96.plain"
USE = f"""
import cvpods_ext
from cvpods_ext.config.playground import PLAYGROUND, find
from cvpods_ext.data.catalog import data_root
from cvpods_ext.config.experiment import load_experiment
assert cvpods_ext.list_models("mask_rcnn.res50.fpn.lvisv1.multiscale.1x")
print(PLAYGROUND)
print(load_experiment(find({NAME!r})).output)
print(data_root(find({NAME!r})))
"""


def test_experiments_are_found_by_name_and_write_into_the_current_folder(tmp_path):
    built, elsewhere = tmp_path / "lib", tmp_path / "elsewhere"
    (elsewhere / "datasets").mkdir(parents=True)
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "base"), "--build-lib"]
    subprocess.run([*build, str(built)], cwd=ROOT, check=True, capture_output=True)
    place = {"PYTHONPATH": str(built), "PODS_OUTPUT": "", "PODS_DATASETS": ""}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=elsewhere, env={**os.environ, **place}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    playground, output, data = done.stdout.split()
    assert Path(playground) == built / "cvpods_ext" / "_playground"
    assert Path(output) == elsewhere / "outputs" / NAME
    assert Path(data) == elsewhere / "datasets"
    assert not [path for path in Path(playground).rglob("*") if path.suffix in (".pth", ".png")]

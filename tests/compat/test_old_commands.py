"""Old folders through the commands: smoke runs that train, stop, resume and test, on one and on two processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import old_folders
import old_image_folders
import pytest
import torch

from cvpods_ext.evaluation.results import Results

FOLDERS = {
    "plain": lambda root: [old_folders.plain(root / "plain")],
    "rfs": lambda root: [old_folders.repeated(root / "rfs")],
    "cosine": lambda root: [old_folders.cosine(root / "cosine")],
    "disalign": lambda root: [
        old_folders.plain(root / "first"),
        old_folders.aligned(root / "second", "first"),
    ],
    "cosine.disalign": lambda root: [
        old_folders.cosine(root / "first"),
        old_folders.aligned(root / "second", "first", "Cosine", "fast_rcnn"),
    ],
    "images": lambda root: [
        old_image_folders.plain(root / "first"),
        old_image_folders.aligned(root / "second", "first"),
    ],
}
STAGE_TWO = ("logit_scale", "logit_bias", "confidence_layer.weight", "confidence_layer.bias", "evaluator.weight")
SMALL = ("data.train_sizes=(96,)", "data.train_max_size=128", "data.test_size=96", "data.test_max_size=128")


@pytest.fixture
def root(tmp_path, monkeypatch):
    data = old_folders.data_root(tmp_path / "datasets", images=4)
    old_image_folders.data_root(data)
    monkeypatch.setenv("PODS_DATASETS", str(data))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def pods(command: str, folder: Path, *words: str) -> str:
    """Run a command inside `folder`, as its users do, on pictures as small as these; returns what it said."""
    small = SMALL if "rcnn" in (folder / "config.py").read_text() else ()
    program = Path(sys.executable).with_name(f"pods_{command}")
    arguments = [program, "--smoke", "--device", "cpu", *words, *small]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "outputs" / "smoke" / "model_final.pth", weights_only=True)["model"]


def steps_of(folder: Path) -> list[dict]:
    lines = (folder / "outputs" / "smoke" / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "total_loss" in record]


SLOW = ("plain", "rfs", "cosine", "cosine.disalign")  # parts of what the others try


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in FOLDERS])
def test_a_folder_trains_and_tests_and_keeps_its_files(kind, root):
    chain = FOLDERS[kind](root)
    for folder in chain:
        before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        said = pods("train", folder)
        assert f"{folder} is a folder of cvpods" in said.replace("\n  ", " ")
        assert len(steps_of(folder)) == (9 if kind == "images" and folder is chain[-1] else 10)  # three epochs of three
        pods("test", folder)
        results = Results.read(folder / "outputs" / "smoke" / "results.json")
        assert results.settings["images"] > 0
        after = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert {path for path in after if path.parts[0] != "outputs"} == before.keys()
        assert all((folder / path).read_bytes() == content for path, content in before.items())
    if len(chain) == 2:  # only the second stage's own values moved
        first, second = map(weights_of, chain)
        moved = {name for name, value in second.items() if name not in first or not torch.equal(value, first[name])}
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        assert {name for name in moved if not name.endswith(statistics)} == {
            name for name in second if name.endswith(STAGE_TWO)
        }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cosine", "images"])
def test_a_run_that_was_stopped_ends_in_the_weights_of_one_that_was_not(kind, root):
    folder = FOLDERS[kind](root)[0]
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    pods("train", folder)
    index = folder / "outputs" / "smoke" / "checkpoints.json"
    half = json.loads(index.read_text())["checkpoints"][0]
    assert half["iteration"] == 5
    (copy / "outputs" / "smoke").mkdir(parents=True)
    shutil.copy(index.parent / half["file"], copy / "outputs" / "smoke")
    (copy / "outputs" / "smoke" / "checkpoints.json").write_text(json.dumps({"checkpoints": [half], "launch": ""}))
    pods("train", copy, "--resume")
    whole, parts = weights_of(folder), weights_of(copy)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("kind", ["plain", *(pytest.param(k, marks=pytest.mark.slow) for k in ("disalign", "images"))])
def test_two_processes_see_the_images_of_one(kind, root):
    """The first losses are equal where norms are frozen: those of trained norms see the images of all processes."""
    alone, together = FOLDERS[kind](root / "one"), FOLDERS[kind](root / "two")
    for one, two in zip(alone, together, strict=True):
        pods("train", one, "schedule.images_per_device=1")
        pods("train", two, "--num-gpus", "2")
        a, b = (steps_of(folder)[0]["total_loss"] for folder in (one, two))
        assert b == (pytest.approx(a, rel=1e-5) if kind != "images" else pytest.approx(a, rel=0.5))
        said = pods("test", two, "--num-gpus", "2")
        assert "results.json" in said

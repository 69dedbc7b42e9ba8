"""Segmentation through every command: train, test, stop and go on, results, pictures, exchange."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny_label_maps
import torch
from PIL import Image
from torch import nn

import cvpods_ext
from cvpods_ext.cli import test as pods_test
from cvpods_ext.cli import train as pods_train
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.structures import Batch
from cvpods_ext.structures.segmentation import LabelMap
from cvpods_ext.tasks.segmentation import TASK

CONFIG = """
from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationConfig

config = override(
    SegmentationConfig(),
    data=dict(
        train=LabelMapFiles(**{train!r}),
        test=LabelMapFiles(**{test!r}),
        crop_side=32,
        train_short=40,
        train_long=160,
        sampler="repeat_factor",
        repeat_threshold=0.5,
        workers=0,
    ),
    model=dict(channels=16, auxiliary_channels=16, test_short=40, test_long=160, test_stride=21),
    schedule=dict(
        iters=60,
        decay=MultiStep(drops=()),
        warmup_iters=2,
        batch_size=4, images_per_device=2, lr=1e-2, optimizer="adamw", clip_norm=1.0
    ),
    test=dict(metrics=("sem_seg", "boundary"), resamples=50, pictures=2, every=30),
    keep_best="sem_seg/mIoU",
    checkpoint_every=30,
    log_every=1,
    picture_every=30,
)
"""
NET = """
from cvpods_ext.data.segmentation import num_classes
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.segmentation.build import upernet


def build_model(cfg):
    widths = (8, 16, 16, 16)
    stages = [Stage(1, width, 4) for width in widths]
    return upernet(
        cfg,
        backbone=ResNet(stages, stem_channels=8, norm="BN", freeze_at=0),
        in_channels=widths,
        num_classes=num_classes(cfg.data, cfg.folder),
    )
"""


def run(command, *arguments):
    before = sys.argv
    sys.argv = [command.__name__, *map(str, arguments)]
    try:
        command.main()
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Trained and tested by the commands."""
    root = tmp_path_factory.mktemp("segmentation")
    data = {
        split: tiny_label_maps.files(tiny_label_maps.write(root / split, images, seed=seed, first=1) / "")
        for split, images, seed in (("train", 12, 0), ("val", 7, 1))
    }
    for split, files in data.items():
        moved = root / split / f"{split}_images"
        Path(files["images"]).rename(moved)
        files |= {"images": str(moved), "reduce_zero_label": True}
    folder = root / "upernet.tiny"
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG.format(train=data["train"], test=data["val"]))
    (folder / "net.py").write_text(NET)
    run(pods_train, "--dir", folder, "--device", "cpu")
    run(pods_test, "--dir", folder, "--device", "cpu")
    return folder


def test_training_says_how_groups_of_classes_are_learned(experiment):
    lines = [json.loads(line) for line in (experiment / "outputs" / "metrics.jsonl").read_text().splitlines()]
    found = {key for line in lines for key in line if key.startswith("group_")}
    assert {"group_loss/frequent", "group_accuracy/frequent"} <= found
    accuracy = [line["group_accuracy/frequent"] for line in lines if "group_accuracy/frequent" in line]
    assert 0 <= min(accuracy) <= accuracy[-1] <= 1


def test_single_pictures_give_the_label_maps_of_the_test(experiment):
    model = cvpods_ext.load(experiment, device="cpu")
    tested = predictions(experiment)
    photos = sorted((experiment.parent / "val" / "val_images").glob("*.*"))
    found = model.predict(photos)
    assert len(found) == 7
    for image_id, one in enumerate(found, 1):
        assert np.array_equal(one.labels, tested._maps.read(image_id, one.labels.shape, len(one.class_names)))
    rows = found[0].rows()
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[0]["pixels"] == max(row["pixels"] for row in rows)
    assert np.array_equal(np.asarray(found[0].images()["labels"]), found[0].labels)
    assert found[0].plot().width >= found[0].labels.shape[1]
    assert found[0].summary().endswith("%")
    with pytest.raises(ConfigError, match="no feature vector"):
        model.extract_feat(photos[0])


def predictions(experiment, *overrides):
    loaded = load_experiment(experiment, overrides)
    return TASK.predictions(loaded, loaded.output / "inference" / "val_images")


def test_accuracies_are_logged_and_losses_added(experiment):
    lines = (experiment / "outputs" / "metrics.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if "total_loss" in record]
    assert len(steps) == 60
    for record in steps:
        assert record["total_loss"] == pytest.approx(record["loss_decode"] + record["loss_aux"], rel=1e-5)
    assert steps[-1]["acc_decode"] > 70 > steps[0]["acc_decode"]


def test_results_hold_both_families_their_groups_and_intervals(experiment):
    results = Results.read(experiment / "results.json")
    assert (results.task, results.dataset) == ("segmentation", "val_images")
    assert results.metrics["sem_seg"]["mIoU"] > 30
    assert results.metrics["sem_seg"]["aAcc"] > results.metrics["sem_seg"]["mIoU"]
    assert 0 < results.metrics["boundary"]["mIoU"] < results.metrics["sem_seg"]["mIoU"]
    low, high = results.settings["intervals"]["sem_seg"]["mIoU"]
    assert low <= results.metrics["sem_seg"]["mIoU"] <= high
    assert sum(results.settings["classes_by_frequency"].values()) == 4
    assert results.settings["images"] == 7
    rows = (experiment / "outputs" / "inference" / "val_images" / "per_class.csv").read_text().splitlines()
    assert rows[0].startswith("label,name,frequency,IoU")
    assert len(rows) == 5


def test_results_equal_a_slow_evaluation_of_the_files(experiment):
    """From the PNGs alone, with loops over classes."""
    maps, data = predictions(experiment), load_experiment(experiment).config.data.test
    right, either = np.zeros(4), np.zeros(4)
    for file in sorted(Path(data.annotations).glob("*.png")):
        truth, found = (np.asarray(Image.open(path)) for path in (file, maps.folder / file.name))
        labelled = truth > 0
        for label in range(4):
            a, b = (values[labelled] == label + 1 for values in (truth, found))
            right[label] += (a & b).sum()
            either[label] += (a | b).sum()
    expected = 100 * (right / either).mean()
    assert Results.read(experiment / "results.json").metrics["sem_seg"]["mIoU"] == pytest.approx(expected)


def test_pictures_of_training_and_test_are_drawn(experiment):
    assert (experiment / "outputs" / "pictures" / "predictions.png").stat().st_size > 1000
    first, second = predictions(experiment).pictures(1)
    assert "ground truth" in first.title
    assert first.pixels.shape[1] == second.pixels.shape[1] >= 480


def test_a_killed_test_goes_on_and_gives_the_same_numbers(experiment, tmp_path):
    """Several scales, mirrored; killed after its first images, then continued by another number of processes."""
    weights = experiment / "outputs" / "model_final.pth"
    scales = ["model.test_ratios=(0.5, 1.0, 1.5)", "model.test_flip=True", "test.metrics=('sem_seg',)"]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    command = ["--dir", experiment, "--device", "cpu", "--weights", weights, *scales]
    run(pods_test, *command, f"output={whole}")
    folder = torn / "inference" / "val_images"
    slow = "import time, cvpods_ext.modeling.segmentation.segmentor as s\n" + (
        "plain = s.inference.predict\n"
        "s.inference.predict = lambda *a: (time.sleep(0.5), plain(*a))[1]\n"
        "from cvpods_ext.cli.test import main\nmain()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *map(str, command), f"output={torn}"], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.png"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    assert 2 <= len(done) < 7
    run(pods_test, *command, f"output={torn}")
    assert {path: path.stat().st_mtime_ns for path in done} == done  # no image was predicted twice
    ours, theirs = (Results.read(output / "results.json") for output in (torn, whole))
    assert ours.metrics == theirs.metrics
    for path in (whole / "inference" / "val_images").glob("*.png"):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_predictions_of_other_scales_are_not_mixed(experiment, tmp_path):
    command = ["--dir", experiment, "--device", "cpu", "--weights", experiment / "outputs" / "model_final.pth"]
    run(pods_test, *command, f"output={tmp_path}")
    first = {path.name: path.read_bytes() for path in (tmp_path / "inference" / "val_images").glob("*.png")}
    run(pods_test, *command, f"output={tmp_path}", "model.test_stride=32")
    second = {path.name: path.read_bytes() for path in (tmp_path / "inference" / "val_images").glob("*.png")}
    assert first.keys() == second.keys()
    assert first != second


def test_shares_of_all_processes_hold_every_image_once(experiment):
    loaded = load_experiment(experiment)
    seen = [b.image_ids for rank in range(3) for b in TASK.test_batches(loaded, rank, 3, {2, 5})]
    assert sorted(image_id for ids in seen for image_id in ids) == [1, 3, 4, 6, 7]


def test_a_zip_for_the_server_can_be_evaluated_again(experiment, tmp_path):
    maps = predictions(experiment)
    assert maps.export("results").write(tmp_path / "out.zip") == 7
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extractall(tmp_path / "theirs")
    loaded = load_experiment(experiment)
    imported = TASK.predictions(loaded, tmp_path / "imported")
    families = imported.import_from(tmp_path / "theirs").families
    assert imported.evaluate(families).metrics == maps.evaluate(families).metrics
    with pytest.raises(ConfigError, match=r"ends in \.zip"):
        maps.export("results").write(tmp_path / "out.json")


def test_data_sets_of_other_classes_are_refused(experiment, tmp_path):
    test = load_experiment(experiment).config.data.test
    copied = shutil.copytree(Path(test.classes).parent, tmp_path / "val")
    (copied / "classes.txt").write_text("ground\nwall\nlamp\nbowl\n")
    (copied / "val_images").rename(copied / "images")
    with pytest.raises(DataError, match="'cup' and 'bowl'"):
        TASK.check_test(_with_test(experiment, copied))


def _with_test(experiment, root):
    import dataclasses

    from cvpods_ext.config.segmentation import LabelMapFiles

    loaded = load_experiment(experiment)
    files = LabelMapFiles(**tiny_label_maps.files(root))
    data = dataclasses.replace(loaded.config.data, test=files)
    return dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, data=data))


def test_what_a_run_is_trained_on_has_a_digest_of_its_own(experiment):
    loaded = load_experiment(experiment)
    digest = TASK.training_set_sha256(loaded)
    assert digest == TASK.training_set_sha256(loaded)
    assert digest != TASK.test_set_sha256(loaded)


def test_a_step_dump_holds_label_maps():
    target = LabelMap(torch.zeros((2, 3), dtype=torch.uint8), 4, (2, 3), (2, 3))
    again = TASK.unpack_target(TASK.pack_target(target))
    assert torch.equal(again.labels, target.labels)
    assert again.image_id == 4


def test_batches_are_the_same_after_a_resume(experiment):
    loaded = load_experiment(experiment)
    batches = TASK.training_batches(loaded, nn.Identity())
    first = [next(batches) for _ in range(6)]
    later = next(TASK.training_batches(loaded, nn.Identity(), start_iteration=2))  # two batches an iteration
    assert isinstance(later, Batch)
    assert later.image_ids == first[4].image_ids
    for ours, theirs in zip(later.images, first[4].images, strict=True):
        assert torch.equal(ours, theirs)

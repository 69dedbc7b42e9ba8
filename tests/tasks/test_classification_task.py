"""Classification through every command: train, test, stop and go on, results, pictures, exchange."""

import csv
import dataclasses
import json
import os
import shutil
import sys

import numpy as np
import pytest
import tiny_classes
import torch
from PIL import Image
from torch import nn

import cvpods_ext
from cvpods_ext.cli import compare as pods_compare
from cvpods_ext.cli import predict as pods_predict
from cvpods_ext.cli import test as pods_test
from cvpods_ext.cli import train as pods_train
from cvpods_ext.config.classification import ClassificationData, Classifier, ImageFiles
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.data import classification_doctor
from cvpods_ext.engine.train import check
from cvpods_ext.errors import ConfigError, StorageError, WeightsError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.modeling.classification.build import image_classifier
from cvpods_ext.modeling.classification.losses import LogitAdjusted, WithoutBackground
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSoftmax
from cvpods_ext.report.runs import group
from cvpods_ext.structures.classification import ImageClass
from cvpods_ext.tasks.classification import TASK
from cvpods_ext.tasks.classification_predictions import ClassificationPredictions

CONFIG = """
from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.classification import ClassificationConfig, ImageFiles

config = override(
    ClassificationConfig(),
    data=dict(
        train=ImageFiles(images={train!r}),
        test=ImageFiles(images={test!r}),
        image_side=32,
        crop_area=(0.5, 1.0),
        sampler="repeat_factor",
        repeat_threshold=0.5,
        workers=0,
    ),
    model=dict(cutmix={cutmix}, mixup={cutmix}),
    schedule=dict(
        iters=40, decay=MultiStep(drops=()), warmup_iters=2, batch_size=8, images_per_device=4, lr=3e-3,
        optimizer="adamw", clip_norm=1.0, ema_decay=0.9,
    ),
    test=dict(many_above=6, few_below=3, resamples=50, pictures=3, every=20),
    keep_best="classification/top1",
    checkpoint_every=20,
    log_every=1,
    picture_every=20,
)
"""
NET = """
from cvpods_ext.data.classification import num_classes
from cvpods_ext.modeling.backbones.eva02 import Size
from cvpods_ext.modeling.classification.build import eva02_classifier


def build_model(cfg):
    return eva02_classifier(cfg, Size(48, 2, 3), num_classes=num_classes(cfg.data, cfg.folder), patch=16)
"""


def run(command, *arguments):
    before = sys.argv
    sys.argv = [command.__name__, *map(str, arguments)]
    try:
        command.main()
    finally:
        sys.argv = before


def write_experiment(root, cutmix=0.0):
    data = {
        split: str(tiny_classes.write(root / split, counts, seed=seed))
        for split, counts, seed in (("train", (12, 6, 3, 2), 0), ("test", (4, 4, 4, 4), 1))
    }
    folder = root / "eva02.tiny"
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG.format(cutmix=cutmix, **data))
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Trained and tested by the commands."""
    folder = write_experiment(tmp_path_factory.mktemp("classification"))
    run(pods_train, "--dir", folder, "--device", "cpu")
    run(pods_test, "--dir", folder, "--device", "cpu")
    return folder


def predictions(experiment, *overrides):
    loaded = load_experiment(experiment, overrides)
    return TASK.predictions(loaded, loaded.output / "inference" / "test")


def test_accuracies_are_logged_and_the_loss_falls(experiment):
    lines = (experiment / "outputs" / "metrics.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if "total_loss" in record]
    assert len(steps) == 40
    assert steps[-1]["loss_cls"] < 0.5 * steps[0]["loss_cls"]
    assert 0 <= steps[-1]["acc_top1"] <= 100


def test_results_hold_all_metrics_with_intervals_and_groups(experiment):
    results = Results.read(experiment / "results.json")
    assert (results.task, results.dataset) == ("classification", "test")
    metrics = results.metrics["classification"]
    assert metrics["top1"] == metrics["mean"] > 50  # the test set is balanced
    assert metrics["top5"] == 100  # four classes
    low, high = results.settings["intervals"]["top1"]
    assert low <= metrics["top1"] <= high
    assert results.settings["classes_by_frequency"] == {"many": 1, "medium": 2, "few": 1}
    assert "train: few < 3 <= medium <= 6 < many" in results.settings["frequency_by"]


def test_results_equal_the_model_on_every_image(experiment):
    """By loading the checkpoint and asking the model image by image."""

    loaded = load_experiment(experiment)
    model = loaded.build_model()
    state = torch.load(experiment / "outputs" / "model_final.pth", weights_only=True)
    model.load_state_dict(state.get("model", state))
    model.eval()
    right = [
        int(model(batch)[0].scores.argmax()) == (batch.image_ids[0] - 1) // 4
        for batch in TASK.test_batches(load_experiment(experiment, ["test.images_per_batch=1"]), 0, 1, ())
    ]
    assert len(right) == 16
    assert Results.read(experiment / "results.json").metrics["classification"]["top1"] == 100 * np.mean(right)


def test_pictures_of_training_and_test_are_drawn(experiment):
    assert (experiment / "outputs" / "pictures" / "predictions.png").stat().st_size > 1000
    assert [picture.title for picture in predictions(experiment).pictures(2)] == [
        "ant/photo_000.jpg",
        "dog/photo_003.jpg",
    ]


def test_a_list_of_classes_can_be_exported(experiment, tmp_path):
    assert predictions(experiment).export("results").write(tmp_path / "out.csv") == 16
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["file"] == "ant/photo_000.jpg"
    right = sum(row["file"].startswith(row["class"]) for row in rows)
    assert Results.read(experiment / "results.json").metrics["classification"]["top1"] == 100 * right / 16


def test_single_pictures_give_the_predictions_of_the_test(experiment, tmp_path):
    """To the last digit where the test looks at one picture at a time as well."""
    alone = ("test.images_per_batch=1", f"output={tmp_path}")
    run(pods_test, "--dir", experiment, "--device", "cpu", "--weights", experiment / "outputs/model_final.pth", *alone)
    predictions(experiment, *alone).export("results").write(tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    model = cvpods_ext.load(experiment, device="cpu")
    found = model.predict(experiment.parent / "test")
    assert [repr(one.pred_score) for one in found] == [row["score"] for row in rows]
    assert [(str(one.pred_label), one.pred_class) for one in found] == [(row["label"], row["class"]) for row in rows]
    first = found[0]
    assert first.pred_scores.sum() == pytest.approx(1, abs=1e-5)
    assert first.rows()[0]["score"] == first.pred_score
    assert first.plot().width == 320
    assert first.to_json(7) == [
        {"image_id": 7, "pred_label": 0, "pred_score": first.pred_score, "pred_class": first.pred_class}
    ]
    features = model.extract_feat([experiment.parent / "test" / "ant" / "photo_000.jpg"] * 2)
    assert features.shape == (2, 48)


def test_an_interrupted_test_goes_on_and_gives_the_same_numbers(experiment, tmp_path):
    loaded = load_experiment(experiment, ["test.images_per_batch=3"])
    whole = predictions(experiment)
    torn = TASK.predictions(loaded, tmp_path)
    model = loaded.build_model().eval()
    with torn.writer(0, {}) as writer:
        for batch in list(TASK.test_batches(loaded, 0, 1, ()))[:2]:
            add_all(writer, model, batch)
    assert torn.completed() == set(range(1, 7))
    with torn.writer(1, {}) as writer:
        for batch in TASK.test_batches(loaded, 0, 1, torn.completed()):
            add_all(writer, model, batch)
    assert torn.completed() == whole.completed() == set(range(1, 17))
    assert torn.evaluate(("classification",)).settings["images"] == 16


def add_all(writer, model, batch):
    for raw, target in zip(TASK.raw_predictions(model, batch), batch.targets, strict=True):
        writer.add(TASK.finish(raw, target))


def test_shares_of_all_processes_hold_every_image_once(experiment):
    loaded = load_experiment(experiment)
    seen = [b.image_ids for rank in range(3) for b in TASK.test_batches(loaded, rank, 3, {2, 5})]
    assert sorted(image_id for ids in seen for image_id in ids) == [i for i in range(1, 17) if i not in (2, 5)]


def test_batches_are_the_same_after_a_resume(experiment):
    loaded = load_experiment(experiment)
    batches = TASK.training_batches(loaded, nn.Identity())
    first = [next(batches) for _ in range(6)]
    later = next(TASK.training_batches(loaded, nn.Identity(), start_iteration=2))  # two batches an iteration
    assert later.image_ids == first[4].image_ids
    for ours, theirs in zip(later.images, first[4].images, strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_with_mixtures_and_average_weights_resumes_bit_for_bit(tmp_path):
    folder = write_experiment(tmp_path, cutmix=0.8)
    train = ["--dir", folder, "--device", "cpu", "test.every=0", "keep_best=''", "picture_every=0"]
    run(pods_train, *train, "schedule.iters=8", "checkpoint_every=4", f"output={tmp_path / 'whole'}")
    run(pods_train, *train, "schedule.iters=4", "checkpoint_every=4", f"output={tmp_path / 'torn'}")
    run(pods_train, *train, "--resume", "schedule.iters=8", "checkpoint_every=4", f"output={tmp_path / 'torn'}")
    ours, theirs = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True, map_location="cpu")
        for name in ("torn", "whole")
    )
    flat = [_tensors(state) for state in (ours, theirs)]
    assert flat[0].keys() == flat[1].keys()
    assert all(torch.equal(flat[0][name], flat[1][name]) for name in flat[1])


def _tensors(state, prefix=""):
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    if isinstance(state, dict):
        return {k: v for name, value in state.items() for k, v in _tensors(value, f"{prefix}/{name}").items()}
    return {}


def test_a_few_images_are_spread_over_the_classes(experiment):
    loaded = load_experiment(experiment, ["data.max_images=4"])
    (batch,) = TASK.test_batches(loaded, 0, 1, ())
    assert batch.image_ids == [1, 6, 11, 16]


def test_an_unknown_augmentation_is_told_before_the_start(experiment):
    with pytest.raises(ConfigError, match="no policy"):
        TASK.check(load_experiment(experiment, ["data.auto_augment=nonsense-m9"]))


def test_an_unknown_metric_is_told_before_training(experiment, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(pods_train, "--dir", experiment, "--device", "cpu", "test.metrics=bbox", f"output={tmp_path / 'new'}")
    assert "bbox" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").glob("*.pth"))


def test_a_step_dump_holds_the_class():
    target = ImageClass(3, 4, (2, 3), (5, 6))
    assert TASK.unpack_target(TASK.pack_target(target)) == target


def test_the_doctor_names_what_is_wrong(tmp_path):
    train = tiny_classes.write(tmp_path / "train")
    val = tiny_classes.write(tmp_path / "val", (2, 2))
    (train / "ant" / "photo_000.jpg").write_bytes(b"")
    (val / "bee" / "photo_000.jpg").write_text("no image")
    data = ClassificationData(
        train=ImageFiles(images=str(train)), test=ImageFiles(images=str(val)), sampler="repeat_factor"
    )
    quick = [(f.level, f.text) for f in classification_doctor.examine_experiment(data, tmp_path)]
    assert ("ok", "23 images of 4 classes, 2 to 12 each") in quick
    assert any("is empty" in text for _, text in quick)
    assert any("2 classes have no image here" in text for _, text in quick)
    assert any("repeats no image" in text for _, text in quick)
    decoded = [f.text for f in classification_doctor.examine_experiment(data, tmp_path, decode=True)]
    assert any("photo_000.jpg cannot be decoded" in text for text in decoded)
    same = dataclasses.replace(data, test=ImageFiles(images=str(train), classes=""))
    same = dataclasses.replace(same, train=ImageFiles(images=str(train), names_may_leave=True))
    assert any("both sets" in f.subject for f in classification_doctor.examine_experiment(same, tmp_path))


def retested(folder, *arguments):
    run(pods_test, "--dir", folder, "--device", "cpu", "--weights", folder / "outputs/model_final.pth", *arguments)


def test_a_picture_replaced_in_place_makes_results_of_other_conditions(experiment, tmp_path):
    """Names and labels are the same, so that only the files can tell."""
    copy = tmp_path / "eva02.tiny"
    shutil.copytree(experiment, copy)
    shutil.copytree(experiment.parent / "test", tmp_path / "test")
    own = f"data.test=ImageFiles(images={str(tmp_path / 'test')!r})"
    path = copy / "config.py"
    path.write_text(path.read_text().replace(str(experiment.parent / "test"), str(tmp_path / "test")))
    found = []
    for _ in range(2):
        retested(copy)
        results = Results.read(copy / "results.json")
        found.append(
            (copy / "results.json", dataclasses.replace(results, provenance={**results.provenance, "seed": own}))
        )
        photo = tmp_path / "test" / "ant" / "photo_000.jpg"
        Image.open(photo).resize((90, 70)).save(photo)
    first, second = (results.provenance for _, results in found)
    assert first["data_sha256"] == second["data_sha256"]
    assert first["image_sizes_sha256"] != second["image_sizes_sha256"]
    assert len(group(found)) == 2


def test_files_whose_names_are_no_text_are_exported(experiment, tmp_path):
    shutil.copytree(experiment.parent / "test", tmp_path / "test")
    copy = tmp_path / "eva02.tiny"
    shutil.copytree(experiment, copy)
    path = copy / "config.py"
    path.write_text(path.read_text().replace(str(experiment.parent / "test"), str(tmp_path / "test")))
    strange = os.fsencode(tmp_path / "test" / "ant") + b"/caf\xe9.jpg"
    shutil.copy(tmp_path / "test" / "ant" / "photo_000.jpg", os.fsdecode(strange))
    retested(copy, "--export", tmp_path / "out.csv")
    assert "ant/caf\\udce9.jpg" in (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert Results.read(copy / "results.json").settings["images"] == 17
    run(pods_compare, copy, "--html", tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 1000
    run(
        pods_predict,
        os.fsdecode(strange),
        "--dir",
        copy,
        "--device",
        "cpu",
        "--out",
        tmp_path / "drawn",
        "--json",
        tmp_path / "found.json",
        "--csv",
        tmp_path / "found.csv",
    )
    assert json.loads((tmp_path / "found.json").read_text())[0]["file_name"] == os.fsdecode(strange)
    assert "udce9" in (tmp_path / "found.csv").read_text(encoding="utf-8")


def test_an_export_that_fails_keeps_no_results_away(experiment, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "eva02.tiny"
    shutil.copytree(experiment, copy)
    (copy / "results.json").unlink()

    def full(*_):
        raise StorageError("the disk is full")

    monkeypatch.setattr(ClassificationPredictions, "_export_csv", full)
    with pytest.raises(SystemExit):
        retested(copy, "--export", tmp_path / "out.csv")
    assert "the disk is full" in capsys.readouterr().err
    assert Results.read(copy / "results.json").settings["images"] == 16


def test_released_weights_are_tested_as_they_are_where_an_average_is_asked_for(experiment, tmp_path):
    released = tmp_path / "released.pth"
    state = torch.load(experiment / "outputs" / "model_final.pth", weights_only=True)
    torch.save({"model": state["ema_state"]}, released)
    model = cvpods_ext.load(experiment, released, "cpu", ["test.ema=True"])
    assert torch.equal(model.network.head.weight, state["ema_state"]["head.weight"])
    own = tmp_path / "own.pth"
    torch.save({"model": state["model"], "iteration": 40}, own)
    with pytest.raises(WeightsError, match="holds no running average"):
        cvpods_ext.load(experiment, own, "cpu", ["test.ema=True"])


def test_a_loss_that_would_ignore_the_smoothing_of_the_config_is_refused():
    config = Classifier(smoothing=0.1)
    built = dict(backbone=nn.Flatten(), width=12, num_classes=4)
    with pytest.raises(ConfigError, match=r"model.smoothing=0.1 has no effect on this WithoutBackground"):
        image_classifier(config, **built, loss=WithoutBackground(BalancedSoftmax(torch.ones(4))))
    with pytest.raises(ConfigError, match="which smooths labels by 0"):
        image_classifier(config, **built, loss=LogitAdjusted(torch.zeros(4)))
    assert image_classifier(config, **built, loss=LogitAdjusted(torch.zeros(4), 0.1)).loss.smoothing == 0.1


def test_a_test_set_with_another_class_is_told_before_training(experiment, caplog):
    (experiment.parent / "extra" / "elk").mkdir(parents=True)
    text = (
        (experiment / "config.py")
        .read_text()
        .replace(str(experiment.parent / "test"), str(experiment.parent / "extra"))
    )
    folder = experiment.parent / "another"
    folder.mkdir()
    (folder / "config.py").write_text(text)
    (folder / "net.py").write_text(NET)
    check(load_experiment(folder, ["test.every=0", "keep_best=''"]))
    assert "what is trained now cannot be tested" in caplog.text
    assert "no class of the training set: elk" in caplog.text

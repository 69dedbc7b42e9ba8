"""Every UPerNet folder resolves to the hyper-parameters, names and rates that its authors' configs resolve to."""

import csv
import gzip
import json
from pathlib import Path

import pytest
import torch
from shared import shared

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import build_optimizer, learning_rate
from cvpods_ext.modeling.segmentation.losses import PixelCrossEntropy
from cvpods_ext.report import published

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground" / "ade20k"
FOLDERS = {
    "upernet.eva02_B.scales.ade20k.crop512.60k": "upernet_eva02_base_12_512_slide_60k",
    "upernet.eva02_L.scales.ade20k.crop512.80k": "upernet_eva02_large_24_512_slide_80k",
    "upernet.eva02_L.scales.ade20k.crop512.multi_scale_test": "upernet_eva02_large_24_512_slide_ms_eval",
    "upernet.eva02_L.scales.ade20k.crop640.80k": "upernetpro_eva02_large_24_640_slide_80k",
}


@pytest.fixture(scope="module", params=FOLDERS)
def pair(request):
    """A folder's experiment and model (without memory), and the published settings."""
    published = json.loads(shared("golden/manifests_seg_cls/seg_configs_resolved.json").read_text())
    experiment = load_experiment(PLAYGROUND / request.param)
    with torch.device("meta"):
        return experiment, experiment.build_model(), published[FOLDERS[request.param]]


def test_network_and_sizes(pair):
    experiment, model, theirs = pair
    backbone = theirs["model"]["backbone"]
    assert list(model.backbone.taps) == backbone["out_indices"]
    assert model.backbone.image_side == backbone["img_size"] == experiment.config.data.crop_side
    assert len(model.backbone.blocks) == backbone["depth"]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in model.backbone.blocks]
    assert rates == pytest.approx(theirs["drop_path_per_block"], abs=1e-7)
    assert model.decode_head.bottleneck.conv.out_channels == theirs["model"]["decode_head"]["channels"]
    assert model.auxiliary_head.convs[0].conv.out_channels == theirs["model"]["auxiliary_head"]["channels"]
    assert model.auxiliary_weight == theirs["model"]["auxiliary_head"]["loss_decode"]["loss_weight"]
    assert model.decode_head.dropout.p == theirs["model"]["decode_head"]["dropout_ratio"]
    assert isinstance(model.loss, PixelCrossEntropy)
    assert sum(p.numel() for p in model.parameters()) == theirs["params_summary"]["total"]


def test_pipelines(pair):
    experiment, model, theirs = pair
    data, train = experiment.config.data, {step["type"]: step for step in theirs["train_pipeline"]}
    assert [data.train_long, data.train_short] == train["Resize"]["img_scale"]
    assert [data.crop_side] * 2 == train["RandomCrop"]["crop_size"]
    assert data.flip_probability == train["RandomFlip"]["prob"]
    assert list(experiment.config.model.pixel_mean) == train["Normalize"]["mean"]
    assert list(experiment.config.model.pixel_std) == train["Normalize"]["std"]
    test, scales = theirs["test_pipeline"][1], model.scales
    assert [scales.long, scales.short] == test["img_scale"]
    assert [scales.stride] * 2 == theirs["model"]["test_cfg"]["stride"]
    assert list(scales.ratios) == (test.get("img_ratios") or [1.0])
    assert scales.flip == test["flip"]


def test_rates_and_weight_decay_of_every_parameter(pair):
    experiment, model, theirs = pair
    optimizer = build_optimizer(model, experiment.config.schedule)
    ours = {id(p): (g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    found = {name: ours[id(p)] for name, p in model.named_parameters()}
    groups = {(g["lr_scale"], g["weight_decay"]): (g["n_tensors"], g["numel"]) for g in theirs["param_groups"].values()}
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    for (scale, decay), (tensors, numel) in groups.items():
        members = [n for n, (s, d) in found.items() if s == pytest.approx(scale) and d == decay]
        assert (len(members), sum(sizes[n] for n in members)) == (tensors, numel)
    path = shared("golden/manifests_seg_cls") / f"lr_wd_{FOLDERS[experiment.name]}.json.gz"
    if path.exists():  # not recorded of the 640 px network
        recorded = json.loads(gzip.decompress(path.read_bytes()))["params"]
        assert found.keys() == recorded.keys()
        assert {n: found[n] for n in found} == {n: pytest.approx(tuple(pair)) for n, pair in recorded.items()}


def test_the_learning_rate_of_every_recorded_step(pair):
    experiment, _, theirs = pair
    schedule = experiment.config.schedule
    assert schedule.iters == theirs["runner"]["max_iters"]
    for iteration, rate in theirs["lr_head_at_iter"].items():
        assert learning_rate(schedule, int(iteration)) == pytest.approx(rate, rel=1e-9)


def test_the_batch_is_the_published_one(pair):
    experiment, _, theirs = pair
    assert experiment.config.schedule.images_per_device == theirs["samples_per_gpu"]
    processes = 4 if "eva02_B" in experiment.name else 8
    assert experiment.config.schedule.batch_size == processes * theirs["samples_per_gpu"]


@pytest.mark.parametrize("name", FOLDERS)
def test_published_numbers_of_the_classes_belong_to_the_published_means(name):
    lines = (PLAYGROUND / "published_per_class.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    record = published.find(name, "ade20k_val")
    assert len(rows) == 150
    for column, metric in (("IoU", "mIoU"), ("Acc", "mAcc")):
        mean = sum(float(row[f"{column} {name}"]) for row in rows) / 150
        assert mean == pytest.approx(record.metrics["sem_seg"][metric], abs=0.011)

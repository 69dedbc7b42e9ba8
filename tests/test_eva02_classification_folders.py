"""The EVA-02 classification folders: sizes, recipes and published numbers against what was recorded of the authors'."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cvpods_ext
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError
from cvpods_ext.report import published

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground" / "imagenet"
GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "eva02_cls"
IMAGES = 1_281_167  # of ImageNet-1k
# Experiment -> timm's model, parameters, multiply-adds of convolutions, linear layers, attention and, five times the
# values, norms; without the classifier (as the model card counts).
ROWS = {
    "eva02-tiny-p14_in21k-pre_3rdparty_in1k": ("eva02_tiny_patch14_336", 5_758_888, 4_675_416_000),
    "eva02-small-p14_in21k-pre_3rdparty_in1k": ("eva02_small_patch14_336", 22_133_608, 15_476_744_064),
    "eva02-base-p14_in21k-pre_3rdparty_in1k": ("eva02_base_patch14_448", 87_126_760, 107_105_984_256),
    "eva02-large-p14_in21k-pre_3rdparty_in1k": ("eva02_large_patch14_448", 305_104_808, 362_333_836_208),
    "eva02-large-p14_m38m-pre_3rdparty_in1k": ("eva02_large_patch14_448", 305_104_808, 362_333_836_208),
    "eva02-base-p14_in21k-pre_in21k-medft_3rdparty_in1k": ("eva02_base_patch14_448", 87_126_760, 107_105_984_256),
    "eva02-large-p14_in21k-pre_in21k-medft_3rdparty_in1k": ("eva02_large_patch14_448", 305_104_808, 362_333_836_208),
    "eva02-large-p14_m38m-pre_in21k-medft_3rdparty_in1k": ("eva02_large_patch14_448", 305_104_808, 362_333_836_208),
}
# Trunks: the card's parameters and multiply-adds.
TRUNKS = {
    "eva02-tiny-p14_in21k-pre_3rdparty_in21k": (5_504_064, 1_703_439_360),
    "eva02-small-p14_in21k-pre_3rdparty_in21k": (21_624_960, 6_135_404_544),
    "eva02-base-p14_in21k-pre_3rdparty_in21k": (85_766_400, 23_216_492_544),
    "eva02-base-p16_in21k-pre_3rdparty_in21k": (85_858_560, 17_605_423_104),
    "eva02-large-p14_in21k-pre_3rdparty_in21k": (303_291_328, 81_146_703_792),
    "eva02-large-p16_in21k-pre_3rdparty_in21k": (303_414_208, 61_656_957_552),
    "eva02-large-p14_m38m-pre_3rdparty_m38m": (303_291_328, 81_146_703_792),
    "eva02-large-p16_m38m-pre_3rdparty_m38m": (303_414_208, 61_656_957_552),
}
SIZES = {"tiny": "Ti", "small": "S", "base": "B", "large": "L"}


def weights_of(name):
    """What the authors call the weights of an experiment."""
    size, data = SIZES[name.split("-")[1]], name.split("_")[1].removesuffix("-pre")
    return f"eva02_{size}_pt_{data}{'_medft_in21k' if 'medft' in name else ''}_ft_in1k_p14"


def build(name):
    experiment = load_experiment(PLAYGROUND / name)
    with torch.device("meta"):
        return experiment.config, experiment.build_model().eval()


def recorded(file):
    if not GOLDEN.is_dir():
        pytest.skip("needs the recorded files of EVA-02's classification code (../shared/golden/eva02_cls)")
    return json.loads((GOLDEN / file).read_text())


@pytest.mark.parametrize("name", ROWS)
def test_parameters_are_those_of_the_card_and_of_timm(name):
    """The card counts a bias on keys, which is stored as zeros; timm's model and ours have none."""
    _, model = build(name)
    timm_name, parameters, _ = ROWS[name]
    depth, width = len(model.backbone.blocks), model.backbone.channels
    ours = sum(parameter.numel() for parameter in model.parameters())
    with torch.device("meta"):
        theirs = timm.create_model(timm_name)
    assert ours == sum(parameter.numel() for parameter in theirs.parameters())
    assert ours + depth * width == parameters


@pytest.mark.parametrize("name", ["eva02-tiny-p14_in21k-pre_3rdparty_in1k", "eva02-base-p14_in21k-pre_3rdparty_in1k"])
def test_multiply_adds_are_those_of_the_card(name):
    config, model = build(name)
    side = config.data.image_side
    assert counted_work(model, side) == ROWS[name][2]


@pytest.mark.parametrize("name", TRUNKS)
def test_trunks_have_the_parameters_and_the_work_of_the_card(name):
    config, model = build(name)
    parameters, work = TRUNKS[name]
    depth, width = len(model.backbone.blocks), model.backbone.channels
    assert sum(parameter.numel() for parameter in model.parameters()) + depth * width == parameters
    if depth == 12:
        assert counted_work(model, config.data.image_side) == work
    assert model.head is None


def test_all_sixteen_rows_of_the_card_are_found_by_name():
    found = set(cvpods_ext.list_models("eva02-*"))
    rows = {row["seed_name"] for row in recorded("cls_rows.json")["rows"]}
    assert rows == {*ROWS, *TRUNKS}
    assert rows <= found


def test_a_trunk_gives_the_features_of_timms_network_and_has_no_classes(tmp_path):
    """Random weights of timm's network, saved as timm would; its mean of patch tokens is what a classifier sees."""
    theirs = timm.create_model("eva02_tiny_patch14_224", num_classes=0).eval()
    torch.save(theirs.state_dict(), tmp_path / "trunk.pth")
    model = cvpods_ext.load("eva02-tiny-p14_in21k-pre_3rdparty_in21k", tmp_path / "trunk.pth", device="cpu")
    picture = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    features = model.extract_feat(picture)
    assert features.shape == (1, 192)
    image, _ = model.task.prepare(model.experiment)(torch.from_numpy(picture).permute(2, 0, 1), 1)
    normalised = model.network.preprocess(image[None])
    with torch.no_grad():
        tokens = theirs.forward_features(normalised)[:, 1:]
    assert torch.allclose(features, tokens.mean(dim=1), atol=1e-4)
    with pytest.raises(ConfigError, match="no classifier"):
        model.predict(picture)


def counted_work(model, side):
    """Multiply-adds of one image in the card's way of counting: torch's counter, and five for each value of a norm."""
    norms = []
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda m, i, o: norms.append(o.numel()))
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.features(torch.zeros(1, 3, side, side))
    return counter.get_total_flops() // 2 + 5 * sum(norms)


@pytest.mark.parametrize("name", ROWS)
def test_recipes_are_the_commands_behind_the_weights(name):
    recipes = recorded("official_cls_recipes.json")
    config = load_experiment(PLAYGROUND / name).config
    init = os.path.basename(config.model.init)
    recipe = next(one for one in recipes if one["init"] == init and "on IN-1K" in one["what"])
    batch = int(recipe["batch_note"].split("=")[1].split("(")[0])
    epoch = IMAGES // batch
    schedule, data, model = config.schedule, config.data, config.model
    assert (schedule.batch_size, schedule.iters) == (batch, int(recipe["ep"]) * epoch)
    assert schedule.warmup_iters == int(recipe["wmep"]) * epoch
    assert schedule.warmup_factor == float(recipe["warmup_lr"])
    assert (schedule.lr, schedule.layer_decay) == (float(recipe["lr"]), float(recipe["lrd"]))
    assert schedule.weight_decay == float(recipe["weight_decay"])
    assert (schedule.ema_decay > 0) == recipe["ema"]
    assert (model.drop_path, model.smoothing) == (float(recipe["dpr"]), float(recipe["smoothing"]))
    assert (model.mixup, model.cutmix) == (float(recipe["mixup"]), float(recipe["cutmix"]))
    assert (data.image_side, data.crop_area[0]) == (int(recipe["sz"]), float(recipe["scale_low"]))
    assert (data.auto_augment, data.crop_ratio) == (recipe["aa"], float(recipe["crop_pct"]))


@pytest.mark.parametrize("name", ROWS)
def test_published_accuracies_are_the_recorded_ones(name):
    results = recorded("official_cls_results.json")
    (line,) = (one for one in results if weights_of(name) + " " in one["what"] and "IN-1K val" in one["what"])
    record = published.find(name, "imagenet_val")
    assert record.metrics["classification"] == {"top1": line["acc1"], "top5": line["acc5"]}
    assert record.cost["parameters"] == f"{ROWS[name][1]:,}"
    assert record.cost["multiply-adds"] == f"{ROWS[name][2]:,}"
    assert weights_of(name) in (PLAYGROUND / name / "config.py").read_text()


def test_positions_class_token_norms_and_biases_are_not_decayed():
    from cvpods_ext.engine.optim import build_optimizer

    config, model = build("eva02-tiny-p14_in21k-pre_3rdparty_in1k")
    optimizer = build_optimizer(model, config.schedule)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim > 1 and not name.endswith(("pos_embed", "cls_token"))
        assert (id(parameter) in decayed) == matrix, name


def test_mmpretrains_recipe_is_told_apart():
    ours = load_experiment(PLAYGROUND / "eva02-tiny-p14_in21k-pre_3rdparty_in1k").config
    theirs = load_experiment(PLAYGROUND / "eva02-tiny-p14_in21k-pre_3rdparty_in1k.mmpretrain_recipe").config
    assert (theirs.model.mixup, theirs.model.cutmix, theirs.schedule.layer_decay) == (0.8, 1.0, 1.0)
    assert (ours.model.mixup, ours.model.cutmix, ours.schedule.layer_decay) == (0, 0, 0.9)
    assert theirs.schedule.iters == 300 * (IMAGES // 128)

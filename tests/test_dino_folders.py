"""Every DINO-EVA folder has the names, sizes and learning rates of the published model."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from shared import shared

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import build_optimizer, learning_rate

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground" / "coco"
FOLDERS = {
    "dino.eva02_B.sfp.coco.lsj1024.12ep": "dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep",
    "dino.eva02_B.sfp.coco.lsj1536.12ep": "dino_eva_02_vitdet_b_6attn_win32_1536_lrd0p7_4scale_12ep",
    "dino.eva02_L.sfp.coco.lsj1024.12ep": "dino_eva_02_vitdet_l_4attn_1024_lrd0p8_4scale_12ep",
    "dino.eva02_L.sfp.coco.lsj1280.12ep": "dino_eva_02_vitdet_l_4attn_1280_lrd0p8_4scale_12ep",
}


@pytest.fixture(scope="module", params=FOLDERS)
def pair(request):
    """A folder's experiment, its model (without memory), and what was published."""
    folder = shared("golden/manifests_dino")
    published = json.loads((folder / "configs_resolved.json").read_text())[FOLDERS[request.param]]
    manifest = json.loads(gzip.decompress((folder / f"{FOLDERS[request.param]}.json.gz").read_bytes()))
    experiment = load_experiment(PLAYGROUND / request.param)
    with torch.device("meta"):
        model = experiment.build_model()
    return experiment.config, model, published, manifest


def test_the_network_is_the_published_one(pair):
    config, model, published, manifest = pair
    net = model.backbone.net
    assert net.image_side == published["img_size"] == published["square_pad"] == config.data.lsj_side
    assert [i for i, block in enumerate(net.blocks) if not block.window] == published["global_block_indexes"]
    assert {block.window for block in net.blocks} == {0, published["window_size"]}
    assert net.recompute == published["use_act_checkpoint"]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in net.blocks]
    assert rates == pytest.approx(published["drop_path_per_block"], abs=1e-6)
    assert len(model.state_dict()) == manifest["num_keys_with_aliases"]
    assert model.num_classes == published["num_classes"]
    assert model.transformer.queries == published["num_queries"]
    assert model.selection.limit == published["select_box_nums_for_evaluation"]
    denoising = model.denoising
    assert (denoising.number, denoising.label_noise, denoising.box_noise) == (
        published["dn_number"],
        published["label_noise_ratio"],
        published["box_noise_scale"],
    )
    assert list(config.model.pixel_mean) == published["pixel_mean"]
    assert list(config.model.pixel_std) == published["pixel_std"]
    assert config.data.channels == published["input_format"]


def test_every_parameter_learns_at_the_rate_of_the_published_model(pair):
    """B models were trained by layer decay, L models by a script of three rates."""
    config, model, published, manifest = pair
    optimizer = build_optimizer(model, config.schedule)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ours = {
        names[id(parameter)]: (config.schedule.lr * group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    if "_L." in str(config.folder):
        expected = manifest["lr_hacked_script"]
    else:
        rate = published["optimizer"]["lr"]
        expected = {name: rate * factor for name, factor in manifest["lr_factor_configured"].items()}
    assert {name: rate for name, (rate, _) in ours.items()} == pytest.approx(expected)
    assert {decay for _, decay in ours.values()} == {published["optimizer"]["weight_decay"]}


def test_the_rate_falls_once_and_does_not_warm_up(pair):
    config, _, published, _ = pair
    full = config.schedule.lr
    last = published["lr_multiplier"]["scheduler"]["milestones"][0]
    assert learning_rate(config.schedule, 0) == full
    assert learning_rate(config.schedule, last - 1) == full
    assert learning_rate(config.schedule, last) == pytest.approx(full / 10)
    assert config.schedule.iters == published["train"]["max_iter"]
    assert config.schedule.clip_norm == published["train"]["clip_grad"]["params"]["max_norm"]

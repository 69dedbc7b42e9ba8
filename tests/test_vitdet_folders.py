"""The ViTDet folders resolve to the recipes released with detectron2 (specification of EVA-02, section 12, parents)."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from shared import shared

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.federated import FederatedLoss

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground"
COCO = [PLAYGROUND / "coco" / f"{name}.mae_vit_B.sfp.coco.lsj1024.100ep" for name in ("mask_rcnn", "cascade_mask_rcnn")]
LVIS = [PLAYGROUND / "lvis1.0" / COCO[i].name.replace("coco.lsj1024", "lvisv1.lsj1024.rfs.fed") for i in range(2)]


@pytest.fixture(scope="module", params=[*COCO, *LVIS], ids=lambda folder: folder.name)
def experiment(request):
    return load_experiment(request.param)


@pytest.fixture(scope="module")
def model(experiment):
    with torch.device("meta"):
        return experiment.build_model()


@pytest.fixture(scope="module")
def lvis(experiment):
    return experiment.config.data.train == "lvis_v1_train"


def test_the_schedule_is_the_published_one(experiment, lvis):
    schedule = experiment.config.schedule
    expected = (156_250, 138_889, 150_463, 2e-4) if lvis else (184_375, 163_889, 177_546, 1e-4)
    assert (schedule.iters, *schedule.decay.milestones(schedule.iters), schedule.lr) == expected
    assert (schedule.batch_size, schedule.warmup_iters, schedule.warmup_factor) == (64, 250, 0.001)
    assert (schedule.optimizer, schedule.layer_decay, schedule.precision) == ("adamw", 0.7, "fp16")
    assert experiment.config.data.sampler == ("repeat_factor" if lvis else "uniform")


def test_norms_and_positions_are_the_parameters_without_decay(experiment, model):
    optimizer = build_optimizer(model, experiment.config.schedule)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    free = {name for name, parameter in model.named_parameters() if decay[id(parameter)] == 0}
    norms = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__
        for part in ("weight", "bias")
    }
    assert free == norms | {"backbone.net.pos_embed"}
    assert set(decay.values()) == {0.0, 0.1}


def test_four_blocks_attend_over_the_whole_map_and_the_others_within_14_tokens(model):
    net = model.backbone.net
    assert [block.window for block in net.blocks] == [14, 14, 0] * 4
    assert (net.channels, net.image_side, net.patch_embed.proj.kernel_size) == (768, 1024, (16, 16))
    assert [block.attn.heads for block in net.blocks] == [12] * 12
    assert net.blocks[-1].drop_path.drop_prob == pytest.approx(0.1)


def test_heads_and_selection_are_the_published_ones(experiment, model, lvis):
    settings = experiment.config.model
    assert (settings.score_threshold, settings.detections_per_image) == ((0.02, 300) if lvis else (0.05, 100))
    assert (settings.nms_threshold, settings.suppression) == (0.5, "hard")
    losses = {type(module) for module in model.modules() if isinstance(module, FederatedLoss | SoftmaxCrossEntropy)}
    assert losses == {FederatedLoss if lvis else SoftmaxCrossEntropy}


@pytest.mark.parametrize(("folder", "data"), [(COCO[1], "coco"), (LVIS[1], "lvis")], ids=["coco", "lvis"])
def test_outside_the_transformer_names_and_shapes_are_those_of_its_published_descendant(folder, data):
    manifest = shared("golden/manifests") / f"eva2_{data}_cascade_mask_rcnn_vitdet_b_4attn_1024_lrd0p7.json.gz"
    published = json.loads(gzip.decompress(manifest.read_bytes()))["state_dict"]
    with torch.device("meta"):
        model = load_experiment(folder).build_model()
    ours = {name: list(value.shape) for name, value in model.state_dict().items() if ".cell_anchors." not in name}
    for state in (ours, published):
        for name in [name for name in state if name.startswith("backbone.net.")]:
            del state[name]
    assert ours == published

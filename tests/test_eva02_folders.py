"""Every EVA-02 folder resolves to the hyper-parameters, names and sizes that its authors' configs resolve to."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from shared import shared
from torch import nn

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.data.detection_loader import training_transforms
from cvpods_ext.data.transforms import HorizontalFlip, LargeScaleJitter
from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.engine.optim import build_optimizer, learning_rate
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.federated import FederatedLoss

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground"
O365 = "o365/cascade_rcnn.eva02_L.sfp.o365.lsj1536"
FOLDERS = {
    "coco/cascade_mask_rcnn.eva02_B.sfp.coco.lsj1024.60k": "coco_cascade_mask_rcnn_vitdet_b_4attn_1024_lrd0p7",
    "coco/cascade_mask_rcnn.eva02_B.sfp.coco.lsj1536.60k": "coco_cascade_mask_rcnn_vitdet_b_6attn_win32_1536_lrd0p7",
    "coco/cascade_mask_rcnn.eva02_L.sfp.coco.lsj1024.60k": "coco_cascade_mask_rcnn_vitdet_l_4attn_1024_lrd0p8",
    "coco/cascade_mask_rcnn.eva02_L.sfp.coco.lsj1536.60k": "coco_cascade_mask_rcnn_vitdet_l_8attn_win32_1536_lrd0p8",
    "lvis1.0/cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.fed.50k": (
        "lvis_cascade_mask_rcnn_vitdet_b_4attn_1024_lrd0p7"
    ),
    "lvis1.0/cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1024.rfs.fed.40k": (
        "lvis_cascade_mask_rcnn_vitdet_l_4attn_1024_lrd0p8"
    ),
    "lvis1.0/cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1536.rfs.fed.40k": (
        "lvis_cascade_mask_rcnn_vitdet_l_8attn_win32_1536_lrd0p8"
    ),
    f"{O365}.m38m.400k": "o365_cascade_mask_rcnn_vitdet_l_8attn_1536_lrd0p8",
    f"{O365}.in21k.400k": "o365_cascade_mask_rcnn_vitdet_l_8attn_1536_lrd0p8",
    "coco/cascade_mask_rcnn.eva02_L.sfp.coco.lsj1536.o365.det.40k": (
        "o365_to_coco_cascade_mask_rcnn_vitdet_l_8attn_1536_lrd0p8"
    ),
    "coco/cascade_mask_rcnn.eva02_L.sfp.coco.lsj1536.o365.seg.40k": (
        "o365_to_coco_cascade_mask_rcnn_vitdet_l_8attn_1536_lrd0p8"
    ),
    "lvis1.0/cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1536.rfs.fed.o365.70k": (
        "o365_to_lvis_cascade_mask_rcnn_vitdet_l_8attn_1536_lrd0p8"
    ),
}
DATASETS = {
    "objects365_trainval": ["objects365_train", "objects365_val"],
    "objects365_val": "objects365_val",
    "coco_2017_train": "coco_2017_train",
    "coco_2017_val": "coco_2017_val",
    "lvis_v1_train": "lvis_v1_train",
    "lvis_v1_val": "lvis_v1_val",
}


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.split("/")[1])
def pair(request):
    """A folder's config and model (without memory), and the published settings."""
    published = json.loads(shared("golden/eva02_configs_resolved.json").read_text())[f"eva2_{FOLDERS[request.param]}"]
    experiment = load_experiment(PLAYGROUND / request.param)
    with torch.device("meta"):
        model = experiment.build_model()
    return experiment.config, model, published


def default(value):
    """The number in "default 50"."""
    return float(value.split()[-1]) if isinstance(value, str) else value


def test_the_backbone_is_the_published_one(pair):
    config, model, published = pair
    net = model.backbone.net
    attention = net.blocks[0].attn
    assert net.image_side == published["img_size"] == published["square_pad"] == config.data.lsj_side
    assert net.patch_embed.proj.kernel_size == (published["patch_size"],) * 2
    assert (net.channels, len(net.blocks)) == (published["embed_dim"], published["depth"])
    assert (attention.heads, net.blocks[0].mlp.w1.out_features) == (published["num_heads"], published["mlp_hidden"])
    windows = [i for i, block in enumerate(net.blocks) if block.window]
    assert windows == published["window_block_indexes"]
    assert [i for i, block in enumerate(net.blocks) if not block.window] == published["global_block_indexes"]
    assert {net.blocks[i].window for i in windows} == {published["window_size"]}
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in net.blocks]
    assert rates == pytest.approx(published["drop_path_per_block"], abs=1e-7)
    assert net.recompute == published["use_act_checkpoint"]


def test_heads_and_selection_are_the_published_ones(pair):
    config, model, published = pair
    heads = model.roi_heads
    assert heads.sampler.num_classes == published["num_classes"]
    assert (heads.mask_head is not None) == published["mask_head"]
    assert published["cls_agnostic_bbox_reg"]
    assert [predictor.bbox_pred.out_features for predictor in heads.box_predictor] == [4, 4, 4]
    assert [list(stage.coder.weights) for stage in heads.stages] == published["cascade_reg_weights"]
    assert list(heads.iou_thresholds) == published["cascade_ious"]
    losses = {type(loss) for loss in heads.classification_loss}
    assert published["use_sigmoid_ce"] == published["use_fed_loss"]
    assert losses == {FederatedLoss if published["use_fed_loss"] else SoftmaxCrossEntropy}
    if published["use_fed_loss"]:
        assert {loss.num_sampled for loss in heads.classification_loss} == {default(published["fed_loss_num_classes"])}
    if config.model.suppression == "hard":  # the others are tested with the options of their published row
        assert config.model.score_threshold == published["test_score_thresh"]
        assert config.model.nms_threshold == default(published["test_nms_thresh"])
        assert config.model.detections_per_image == default(published["test_topk_per_image"])
        assert config.test.max_detections == (published["max_dets_per_image"] or 100)


def test_published_evaluations_use_soft_nms_as_stated(pair):
    config, _, published = pair
    model, lvis = config.model, published["test_dataset"].startswith("lvis")
    if model.suppression != "hard":
        assert (model.suppression, model.nms_threshold) == ("linear", 0.6)
        assert model.score_threshold == (published["test_score_thresh"] if lvis else 0.0)
        assert model.maskness_threshold in (0.0, 0.5)
        assert config.test.ema == published["ema"]["enabled"]
        if lvis:
            assert model.detections_per_image == config.test.max_detections == (1000 if config.test.ema else 300)
        else:  # nothing is cut after Soft-NMS; the evaluator counts 100 of an image and category
            assert (model.detections_per_image, model.detections_per_class) == (0, 100)


def test_training_is_the_published_one(pair):
    config, model, published = pair
    schedule = config.schedule
    assert (schedule.optimizer, schedule.lr, schedule.clip_norm) == ("adamw", published["lr"], 0.0)
    assert (schedule.iters, schedule.batch_size) == (published["max_iter"], published["total_batch_size"])
    assert (schedule.precision, model.float32_heads) == ("fp16", True)
    assert published["amp"]
    assert schedule.layer_decay == published["lr_decay"]["lr_decay_rate"]
    assert schedule.ema_decay == (published["ema"]["decay"] if published["ema"]["enabled"] else 0.0)
    optimizer = build_optimizer(model, schedule)
    assert len(optimizer.param_groups) == published["num_param_groups"]
    assert {group["weight_decay"] for group in optimizer.param_groups} == set(published["distinct_weight_decays"])
    assert optimizer.defaults["betas"] == tuple(published["betas"])
    for iteration, multiplier in published["lr_multiplier_at"].items():
        # beyond the last step the scheduler of the record has no value
        if int(iteration) < schedule.iters:
            rate = learning_rate(schedule, int(iteration)) / schedule.lr
            assert rate == pytest.approx(multiplier, rel=1e-6), iteration


def test_data_are_the_published_ones(pair):
    config, _, published = pair
    data = config.data
    assert DATASETS[data.train] == published["train_dataset"]
    assert DATASETS[data.test] == published["test_dataset"]
    assert data.channels == published["image_format"]
    if isinstance(published["sampler"], float):
        assert (data.sampler, data.repeat_threshold) == ("repeat_factor", published["sampler"])
    else:
        assert data.sampler == "uniform"
    flip, resize, crop = published["train_augs"]
    transforms = training_transforms(data)
    assert transforms == [
        HorizontalFlip(0.5),
        LargeScaleJitter(int(resize["target_width"]), float(resize["min_scale"]), float(resize["max_scale"])),
    ]
    assert flip["horizontal"] == "True"
    assert (crop["crop_size"], crop["pad"]) == (f"[{data.lsj_side}, {data.lsj_side}]", "False")
    (test,) = published["test_augs"]
    assert (str(data.test_size), str(data.test_max_size)) == (test["short_edge_length"], test["max_size"])
    assert data.workers == published["num_workers_train"]


def test_parameters_are_as_many_as_published(pair):
    _, model, published = pair
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == round(published["num_params_million"] * 1e6)
    stored = [name for name in model.state_dict() if ".cell_anchors." not in name]
    assert len(stored) == published["num_state_keys"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.split("/")[1])
def test_names_and_shapes_equal_the_published_manifest(folder):
    path = shared("golden/manifests") / f"eva2_{FOLDERS[folder]}.json.gz"
    if not path.is_file():
        pytest.skip("no manifest for this folder")
    manifest = json.loads(gzip.decompress(path.read_bytes()))
    with torch.device("meta"):
        model: nn.Module = load_experiment(PLAYGROUND / folder).build_model()
    # anchors are stored beside the published R50 models, so ours are in the state dict too
    ours = {name: list(value.shape) for name, value in model.state_dict().items() if ".cell_anchors." not in name}
    assert ours == manifest["state_dict"]
    averaged = set(WeightAverage(model, decay=0.9999).tensors)
    stored = set(manifest["state_dict"])
    published = (stored | set(manifest["ema_state_keys_not_in_state_dict"])) - set(
        manifest["state_dict_keys_not_in_ema_state"]
    )
    assert averaged == published


def test_the_average_of_the_large_federated_detector_holds_the_583_published_tensors():
    folder = "lvis1.0/cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1536.rfs.fed.o365.70k"
    with torch.device("meta"):
        model = load_experiment(PLAYGROUND / folder).build_model()
    assert len(WeightAverage(model, decay=0.9999).tensors) == 583

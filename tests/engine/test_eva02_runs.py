"""A small EVA-02 detector, with everything its folders train with, gives the same run on one process and on several.

Layer-wise rates, the average of the weights, recomputed activations, stochastic depth, the federated loss's draws.
"""

import pytest
import torch
from processes import final_state, losses, train
from tiny_experiment import make_data

CONFIG = """
from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.bases import MINI
from cvpods_ext.config.schema import DatasetFiles

config = override(
    MINI,
    data=dict(
        train=DatasetFiles(annotations={train!r}, images={images!r}),
        test=DatasetFiles(annotations={val!r}, images={images!r}),
        lsj_side=64,
        lsj_range=(0.7, 1.4),
        test_size=64,
        test_max_size=64,
    ),
    model=dict(
        init="none", anchor_sizes=(8, 16, 32, 64, 128), proposals_per_level=(50, 50), proposals=(40, 30),
        rois_per_image=24, rpn_convs=2, box_convs=(16,), box_fc=(16,), class_agnostic_boxes=True, mask_width=16,
        mask_convs=1, head_norm="LN", float32_heads=True, detections_per_image=5,
    ),
    schedule=dict(
        iters=4,
        decay=MultiStep(drops=(0.5,)),
        warmup_iters=2,
        lr=0.001,
        batch_size=8,
        images_per_device=2,
        optimizer="adamw",
        weight_decay=0.1,
        decay_norms=True,
        layer_decay=0.7,
        ema_decay=0.9,
        clip_norm=1.0,
    ),
    checkpoint_every=2,
    log_every=1,
    picture_every=0,
)
"""

NET = """
from functools import partial

from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.detection.build import CascadeBoxBranch, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.classifiers import FederatedClassifier
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def build_model(cfg):
    counts = image_counts(cfg.data, cfg.folder)
    net = eva02_of(
        Size(24, 3, 2), image_side=64, window=2, global_blocks=(1,), drop_path=0.2, recompute={recompute}
    )
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=len(counts),
        backbone=SimplePyramid(net, 16),
        box=CascadeBoxBranch(
            classifier=partial(FederatedClassifier, cfg.model.box_features, counts),
            loss=partial(FederatedLoss, counts, num_sampled=3),
        ),
    )
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def experiment(folder, data, recompute):
    folder.mkdir()
    names = {"train": str(data.train), "val": str(data.val), "images": str(data.root / "coco")}
    (folder / "config.py").write_text(CONFIG.format(**names))
    (folder / "net.py").write_text(NET.format(recompute=recompute))
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory, data):
    """One process that accumulates the batch of 8 from four micro-batches of 2, without recomputing."""
    root = tmp_path_factory.mktemp("single")
    assert train(experiment(root / "plain", data, recompute=False), root / "out") == [0]
    return root / "out"


@pytest.mark.slow
@pytest.mark.parametrize(("sharding", "ranks"), [("replicate", 2), ("shard", 2), ("shard", 4)])
def test_fewer_processes_that_accumulate_or_share_the_weights_train_as_the_published_batch(
    tmp_path, data, single, sharding, ranks
):
    output = tmp_path / "out"
    folder = experiment(tmp_path / "recomputing", data, recompute=True)
    assert train(folder, output, f"schedule.sharding={sharding}", ranks=ranks) == [0] * ranks
    assert len(losses(single)) == 4
    torch.testing.assert_close(torch.tensor(losses(output)), torch.tensor(losses(single)), rtol=2e-4, atol=1e-5)
    ours, theirs = final_state(output), final_state(single)
    assert ours.keys() == theirs.keys()
    assert any("ema_state/backbone.net.blocks.0.attn.q_bias" in name for name in ours)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")

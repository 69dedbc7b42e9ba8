"""Federated losses: which classes are asked, how they are drawn, and what the LVIS lists change."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from golden_parity import D2Golden
from loss_cases import assert_equals_reference, bce, context_of, lvis
from safetensors.torch import load_file
from shared import shared

from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.federated import FederatedLoss, VerifiedFederatedLoss, verified_classes
from cvpods_ext.structures import Targets

GOLDEN = {"d2_tiny_mask_rcnn": {"fed8": 8, "fed4": 4}, "d2_tiny_cascade_mask_rcnn": {"fed8": 8, "fed4": 4}}


def test_the_loss_asks_the_labels_and_the_largest_weights_when_noise_is_off():
    counts = torch.tensor([5.0, 1, 9, 7, 3, 2])
    loss = FederatedLoss(counts, num_sampled=4, noise=torch.zeros_like)

    def reference(z, labels, context):
        asked = set(labels.tolist())  # background is counted as one of the classes
        for c in sorted(range(6), key=lambda c: -counts[c]):
            if len(asked) < 4 and c not in asked:
                asked.add(c)
        total = sum(bce(z[r, c], labels[r] == c) for r in range(len(z)) for c in sorted(asked) if c < 6)
        return total / len(z)

    for seed in range(4):
        assert_equals_reference(loss, reference, seed=seed)
    assert_equals_reference(loss, reference, rows=2)  # one label and background: two are drawn


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([6, 6], 3),  # background and three drawn ones
        ([0, 6], 3),
        ([0, 1, 2, 3], 4),  # enough already: nothing is drawn
        ([0, 1, 2, 3, 4, 5, 6], 6),  # more than enough: all are used
        ([0, 1, 2, 3, 4], 5),
    ],
)
def test_classes_are_filled_up_to_the_number_and_never_cut(labels, expected):
    loss = FederatedLoss(torch.ones(6), num_sampled=4)
    for _ in range(20):
        classes = loss.classes(torch.tensor(labels))
        assert classes.sum() == expected
        assert all(classes[label] for label in labels if label < 6)


def test_classes_without_images_are_never_drawn():
    loss = FederatedLoss(torch.tensor([1.0, 0, 1, 0]), num_sampled=4)
    for _ in range(20):
        assert loss.classes(torch.tensor([4])).tolist() == [True, False, True, False]


def test_more_classes_wanted_than_there_are_asks_all():
    assert FederatedLoss(torch.ones(3), num_sampled=50).classes(torch.tensor([3])).all()


def test_the_draw_has_the_distribution_of_drawing_without_replacement():
    # Two of three classes with weights 4, 2, 1 (counts 16, 4, 1): the probabilities of each pair by hand.
    loss = FederatedLoss(torch.tensor([16.0, 4, 1]), num_sampled=3)  # background takes one of the three places
    torch.manual_seed(0)
    draws = torch.stack([loss.classes(torch.tensor([3])) for _ in range(8000)])
    left_out = (~draws).float().mean(dim=0)
    pairs = {2: 4 / 7 * 2 / 3 + 2 / 7 * 4 / 5, 1: 4 / 7 * 1 / 3 + 1 / 7 * 4 / 6, 0: 2 / 7 * 1 / 5 + 1 / 7 * 2 / 6}
    assert draws.sum(dim=1).eq(2).all()
    for excluded, probability in pairs.items():
        assert left_out[excluded].item() == pytest.approx(probability, abs=4 * (probability / 8000) ** 0.5)


@pytest.mark.parametrize(
    ("table", "name", "probability"),
    [
        ("lvis_v1_train", "banana", 3.007e-3),
        ("lvis_v1_train", "ambulance", 3.337e-4),
        ("lvis_v1_train", "applesauce", 1.423e-4),
        ("lvis_v1_train", "zucchini", 6.403e-4),
        ("lvis_v0.5_train", "acorn", 1.334e-4),
        ("lvis_v0.5_train", "banana", 2.902e-3),
    ],
)
def test_draw_probabilities_on_lvis(table, name, probability):
    images, _, labels = lvis(table)
    weights = FederatedLoss(images).log_weights.exp()
    assert (weights / weights.sum())[labels[name]].item() == pytest.approx(probability, rel=4e-4)  # four digits


def test_the_weights_equal_the_recorded_ones_of_lvis():
    recorded = np.load(shared("golden/ops/eva_ops.npz"))["lvis_v1_train_fed_loss_weights_power0.5"]
    np.testing.assert_allclose(FederatedLoss(lvis("lvis_v1_train")[0]).log_weights.exp(), recorded, rtol=1e-5)


@pytest.mark.parametrize("folder", ["d2_tiny_mask_rcnn", "eva_tiny"])
def test_drawn_classes_equal_the_recorded_runs(folder):
    meta = json.loads(shared(f"golden/{folder}/meta.json").read_text())
    train = np.load(shared(f"golden/{folder}/train.npz"))
    weights = load_file(shared(f"golden/{folder}/weights.safetensors"))
    weights = next(value for name, value in weights.items() if name.endswith("fed_loss_cls_weights"))
    key = next(name for name in meta if name.startswith("train_fed_drawn"))
    checked = 0
    for setting, drawn in meta[key].items():
        sampling, kind, masks = setting.split("/")
        if "_fed" not in kind or masks != "polygon":
            continue
        loss = FederatedLoss(weights**2, num_sampled=int(kind.split("_fed")[1]), noise=torch.zeros_like)
        stages = range(3) if folder == "eva_tiny" else [None]
        for k in stages:
            name = f"{sampling}_roi_gt_classes" if k is None else f"{sampling}_stage{k}_gt_classes"
            labels = torch.from_numpy(np.concatenate([train[f"{name}_img{i}"] for i in range(2)])).long()
            expected = set(labels[labels < len(weights)].tolist())
            expected |= set(drawn[k or 0]) if drawn else set()
            assert set(loss.classes(labels).nonzero()[:, 0].tolist()) == expected, (setting, k)
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize("folder", GOLDEN)
def test_the_loss_equals_the_recorded_runs_of_the_reference_detector(folder):
    golden = D2Golden(shared(f"golden/{folder}"))
    weights = next(value for name, value in golden.weights().items() if name.endswith("fed_loss_cls_weights"))
    checked = 0
    for key, recorded in golden.meta["train_losses"].items():
        sampling, kind, masks = key.split("/")
        if "_fed" not in kind:
            continue
        make = partial(FederatedLoss, weights**2, int(kind.split("_fed")[1]), noise=torch.zeros_like)
        model = golden.model(sampling, make).train()
        losses = model(golden.batch(masks))
        for name in recorded:
            if name.startswith("loss_cls"):
                assert losses[name].item() == pytest.approx(recorded[name], rel=1e-5), (key, name)
                checked += 1
    assert checked >= 4


# ---- verified classes -----------------------------------------------------------------------------------------------


def target(labels, negatives=(), incomplete=()):
    return Targets(
        boxes=torch.zeros(len(labels), 4),
        labels=torch.tensor(labels).long(),
        image_id=0,
        size=(1, 1),
        original_size=(1, 1),
        negative_labels=torch.tensor(negatives).long(),
        not_exhaustive_labels=torch.tensor(incomplete).long(),
    )


def test_verified_classes_by_hand():
    targets = [target([0, 0, 2], negatives=[3], incomplete=[2]), target([], negatives=[1, 4]), target([])]
    assert verified_classes(targets, 5, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 1, 0],
        [0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]


def test_the_verified_loss_equals_its_definition():
    def reference(z, labels, context):
        total = 0.0
        for r in range(len(z)):
            image = context.targets[context.image_of_roi[r]]
            known = set(image.labels.tolist()) | set(image.negative_labels.tolist())
            known -= set(image.not_exhaustive_labels.tolist())
            for c in range(z.shape[1] - 1):
                if labels[r] == c:
                    total += bce(z[r, c], True)
                elif c in known:
                    total += bce(z[r, c], False)
        return total / len(z)

    for seed in range(3):
        assert_equals_reference(VerifiedFederatedLoss(), reference, seed=seed)


def test_a_positive_counts_even_where_its_class_is_not_exhaustive():
    loss = VerifiedFederatedLoss()
    logits = torch.zeros(2, 2, requires_grad=True)
    context = LossContext(torch.zeros(2, dtype=torch.int64), [target([0], incomplete=[0])])
    loss(logits, torch.tensor([0, 1]), context).backward()
    assert logits.grad.tolist() == [[-0.25, 0], [0, 0]]  # the background RoI is no negative of the class


def test_without_a_context_the_mistake_is_named():
    with pytest.raises(AssertionError, match="verified classes"):
        VerifiedFederatedLoss()(torch.zeros(1, 2), torch.tensor([0]))


def test_images_without_rois_do_not_shift_the_others():
    context = context_of(torch.tensor([0, 6]), 6)
    moved = LossContext(context.image_of_roi + 1, [target([5]), *context.targets])
    logits = torch.randn(2, 7)
    labels = torch.tensor([0, 6])
    assert VerifiedFederatedLoss()(logits, labels, context) == VerifiedFederatedLoss()(logits, labels, moved)

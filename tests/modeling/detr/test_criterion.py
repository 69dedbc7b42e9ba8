import pytest
import torch

from cvpods_ext.modeling.detr import criterion
from cvpods_ext.modeling.detr.criterion import Criterion, denoising_pairs
from cvpods_ext.modeling.detr.denoising import DenoisingSettings, make_denoising
from cvpods_ext.modeling.detr.losses import SigmoidFocal
from cvpods_ext.modeling.detr.matcher import Objects, Predictions

CLASSES = 3


def nothing_denoised(layers, images):
    no_labels = [torch.zeros(0, dtype=torch.int64)] * images
    empty = make_denoising(no_labels, [torch.zeros(0, 4)] * images, CLASSES, DenoisingSettings())
    return Predictions(torch.zeros(layers, images, 0, CLASSES), torch.zeros(layers, images, 0, 4)), empty


def far_logits(*shape):
    """Every class certainly absent: no classification loss worth mentioning."""
    return torch.full((*shape, CLASSES), -40.0)


def test_six_layers_have_39_losses():
    predictions = Predictions(far_logits(7, 1, 4), torch.full((7, 1, 4, 4), 0.5))
    objects = Objects(torch.tensor([[1]]), torch.full((1, 1, 4), 0.5), (1,))
    losses = Criterion(SigmoidFocal())(predictions, *nothing_denoised(6, 1), objects, [])
    suffixes = ["", "_enc", "_dn", *(f"_{i}" for i in range(5)), *(f"_dn_{i}" for i in range(5))]
    assert set(losses) == {f"loss_{kind}{suffix}" for kind in ("class", "bbox", "giou") for suffix in suffixes}
    assert all(losses[name] == 0 for name in losses if "_dn" in name)


def test_losses_by_hand():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2]]).expand(2, 1, 2, 4)
    objects = Objects(torch.tensor([[2]]), torch.tensor([[[0.5, 0.6, 0.2, 0.2]]]), (1,))
    losses = Criterion(SigmoidFocal())(Predictions(far_logits(2, 1, 2), boxes), *nothing_denoised(1, 1), objects, [])
    # the first query is nearer: moved by half its height, IoU 1 / 3 with a hull that the union fills
    assert losses["loss_bbox"].item() == pytest.approx(5 * 0.1, rel=1e-5)
    assert losses["loss_giou"].item() == pytest.approx(2 * (1 - 1 / 3), rel=1e-3)
    # a missed object of logit -40: -0.25 * ln(sigmoid(-40)) = 10
    assert losses["loss_class"].item() == pytest.approx(10.0, rel=1e-4)
    assert losses["loss_class_enc"].item() == pytest.approx(10.0, rel=1e-4)


def test_losses_are_means_over_the_objects_of_the_batch():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2]])
    objects = Objects(torch.tensor([[2, 1], [0, -1]]), boxes.expand(2, 2, 4) + torch.tensor([0.03, 0, 0, 0]), (2, 1))
    predictions = Predictions(far_logits(2, 2, 2), boxes.expand(2, 2, 2, 4))
    losses = Criterion(SigmoidFocal())(predictions, *nothing_denoised(1, 2), objects, [])
    assert losses["loss_bbox"].item() == pytest.approx(5 * 0.03, rel=1e-4)


def test_the_number_of_objects_is_the_mean_over_all_processes(monkeypatch):
    """Another process has five objects more: each of two counts (1 + 6) / 2."""
    predictions = Predictions(far_logits(2, 1, 2), torch.full((2, 1, 2, 4), 0.5))
    objects = Objects(torch.tensor([[2]]), torch.tensor([[[0.5, 0.6, 0.5, 0.5]]]), (1,))
    alone = Criterion(SigmoidFocal())(predictions, *nothing_denoised(1, 1), objects, [])
    monkeypatch.setattr(criterion, "mean_over_processes", lambda count: (count + count + 5) / 2)
    shared = Criterion(SigmoidFocal())(predictions, *nothing_denoised(1, 1), objects, [])
    for name in ("loss_class", "loss_bbox", "loss_giou", "loss_class_enc"):
        assert shared[name].item() == pytest.approx(alone[name].item() / 3.5)


def test_without_objects_only_classification_costs():
    logits = torch.zeros(2, 1, 3, CLASSES, requires_grad=True)
    boxes = torch.full((2, 1, 3, 4), 0.5, requires_grad=True)
    objects = Objects(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, 4), (0,))
    losses = Criterion(SigmoidFocal())(Predictions(logits, boxes), *nothing_denoised(1, 1), objects, [])
    # nine entries of a score 1/2 on an absent class, divided by one object
    assert losses["loss_class"].item() == pytest.approx(9 * 0.75 * 0.25 * 0.693147, rel=1e-4)
    assert losses["loss_bbox"] == losses["loss_giou"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.abs().max() == 0


def test_positives_of_every_group_belong_to_their_objects():
    labels = [torch.tensor([1, 2]), torch.tensor([0])]
    boxes = [torch.full((2, 4), 0.5), torch.full((1, 4), 0.5)]
    denoising = make_denoising(labels, boxes, CLASSES, DenoisingSettings(number=4))
    pairs = denoising_pairs(denoising, (2, 1), 1, torch.device("cpu"))
    # two groups of two slots: positives at 0, 1 and 4, 5
    assert sorted(zip(*(x.tolist() for x in pairs[1:]), strict=True)) == [
        (0, 0, 0), (0, 1, 1), (0, 4, 0), (0, 5, 1),
        (1, 0, 0), (1, 4, 0),
    ]  # fmt: skip


def test_denoising_losses_are_means_over_objects_and_groups():
    labels, boxes = [torch.tensor([1])], [torch.full((1, 4), 0.5)]
    denoising = make_denoising(labels, boxes, CLASSES, DenoisingSettings(number=3))
    shifted = torch.full((1, 1, 6, 4), 0.5) + torch.tensor([0.02, 0, 0, 0])
    objects = Objects(torch.tensor([[1]]), torch.full((1, 1, 4), 0.5), (1,))
    matched = Predictions(far_logits(2, 1, 2), torch.full((2, 1, 2, 4), 0.5))
    losses = Criterion(SigmoidFocal())(matched, Predictions(far_logits(1, 1, 6), shifted), denoising, objects, [])
    assert losses["loss_bbox_dn"].item() == pytest.approx(5 * 0.02, rel=1e-4)
    assert losses["loss_class_dn"].item() == pytest.approx(10.0, rel=1e-4)  # the three positives missed, of three

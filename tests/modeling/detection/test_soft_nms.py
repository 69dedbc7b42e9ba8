"""Soft-NMS against a sequential loop and values by hand; recorded outputs are in test_eva02_parity.py."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared

from cvpods_ext.modeling.detection import soft_nms as module
from cvpods_ext.modeling.detection.box_coding import BoxCoder
from cvpods_ext.modeling.detection.soft_nms import soft_nms
from cvpods_ext.structures.boxes import clip, pairwise_iou


def sequential(boxes, scores, *, decay, iou_threshold, sigma, min_score=1e-3):
    """The rule word by word, for one class, in float64."""
    overlaps, left = pairwise_iou(boxes.double(), boxes.double()).tolist(), dict(enumerate(scores.double().tolist()))
    left = {i: score for i, score in left.items() if score >= min_score}
    kept = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        kept.append((best, left.pop(best)))
        for i in list(left):
            overlap = overlaps[best][i]
            if decay == "linear":
                left[i] *= 1 - overlap if overlap >= iou_threshold else 1.0
            else:
                left[i] *= math.exp(-(overlap**2) / sigma)
            if left[i] < min_score:
                del left[i]
    return dict(kept)


def random_boxes(generator, count, spread):
    corner = torch.rand(count, 2, generator=generator) * spread
    return torch.cat((corner, corner + 1 + 40 * torch.rand(count, 2, generator=generator)), dim=1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 60),
    classes=st.integers(1, 4),
    spread=st.sampled_from([5.0, 60.0, 400.0]),
    decay=st.sampled_from(["linear", "gaussian"]),
    iou_threshold=st.sampled_from([0.0, 0.3, 0.6]),
)
def test_it_equals_the_sequential_rule_within_every_class(seed, count, classes, spread, decay, iou_threshold):
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, count, spread)
    scores = torch.rand(count, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    keep, lowered = soft_nms(boxes, scores, labels, decay=decay, iou_threshold=iou_threshold)
    expected = {}
    for label in range(classes):
        rows = (labels == label).nonzero()[:, 0]
        kept = sequential(boxes[rows], scores[rows], decay=decay, iou_threshold=iou_threshold, sigma=0.5)
        expected |= {rows[i].item(): score for i, score in kept.items()}
    found = dict(zip(keep.tolist(), lowered.tolist(), strict=True))
    for i in found.keys() ^ expected.keys():  # rounding decides for a score right at the limit
        assert (found | expected)[i] == pytest.approx(1e-3, rel=1e-4)
    both = found.keys() & expected.keys()
    assert {i: found[i] for i in both} == pytest.approx({i: expected[i] for i in both}, rel=1e-4)


def test_two_overlapping_boxes_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]])  # IoU of the first two is 1/2
    scores = torch.tensor([0.6, 0.9, 0.5])
    keep, lowered = soft_nms(boxes, scores, torch.zeros(3), decay="linear", iou_threshold=0.5)
    assert keep.tolist() == [1, 2, 0]
    assert lowered.tolist() == pytest.approx([0.9, 0.5, 0.3])
    _, lowered = soft_nms(boxes, scores, torch.zeros(3), decay="gaussian", sigma=0.5)
    assert lowered.tolist() == pytest.approx([0.9, 0.5, 0.6 * math.exp(-0.5)])
    keep, lowered = soft_nms(boxes, scores, torch.tensor([0, 1, 0]), decay="linear", iou_threshold=0.5)
    assert lowered.tolist() == pytest.approx([0.9, 0.6, 0.5])


def test_a_lowered_box_lowers_others_only_after_its_turn():
    """A chain: the middle box falls below the last one, which therefore is not lowered by it."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10], [10, 0, 20, 10]])
    keep, lowered = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), decay="linear", iou_threshold=0.3)
    third = 0.8 * (1 - 1 / 3) * (1 - 1 / 3)  # lowered by the first, then by the last
    assert keep.tolist() == [0, 2, 1]
    assert lowered.tolist() == pytest.approx([0.9, 0.7, third])


def test_copies_of_one_box_survive_once_under_linear_decay():
    keep, lowered = soft_nms(
        torch.tensor([[0.0, 0, 5, 5]]).repeat(4, 1), torch.tensor([0.2, 0.4, 0.4, 0.3]), torch.zeros(4)
    )
    assert keep.tolist() == [1]
    assert lowered.tolist() == pytest.approx([0.4])


def test_no_boxes_and_boxes_without_area():
    keep, lowered = soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0))
    assert (len(keep), len(lowered)) == (0, 0)
    keep, lowered = soft_nms(torch.zeros(3, 4), torch.tensor([0.5, 1e-4, 0.7]), torch.zeros(3))
    assert keep.tolist() == [2, 0]


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_computing_in_parts_changes_nothing(monkeypatch, at_once):
    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(generator, 50, 30), torch.rand(50, generator=generator)
    classes = torch.randint(3, (50,), generator=generator)
    expected = soft_nms(boxes, scores, classes)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", at_once)
    for ours, theirs in zip(soft_nms(boxes, scores, classes), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_it_equals_mmcv_where_that_is_installed():
    ops = pytest.importorskip("mmcv.ops")
    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(generator, 200, 60), torch.rand(200, generator=generator)
    keep, lowered = soft_nms(boxes, scores, torch.zeros(200), decay="linear", iou_threshold=0.6)
    detections, theirs = ops.soft_nms(boxes, scores, iou_threshold=0.6, min_score=1e-3, method="linear")
    expected = dict(zip(theirs.tolist(), detections[:, 4].tolist(), strict=True))
    assert dict(zip(keep.tolist(), lowered.tolist(), strict=True)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
def test_recorded_detections_suppressed_across_classes(decay):
    """The last stage's recorded boxes and scores, as if they were all of one class."""
    recorded = np.load(shared("golden/eva_tiny/inference.npz"))
    coder = BoxCoder((30.0, 30.0, 15.0, 15.0))
    for image, (height, width) in enumerate([(112, 128), (128, 90)]):
        rows = slice(100 * image, 100 * image + 100)
        sources = torch.from_numpy(recorded[f"stage2_in_boxes{image}"])
        boxes = clip(coder.decode(torch.from_numpy(recorded["stage2_deltas"][rows]), sources), (height, width))
        scores = torch.from_numpy(recorded["avg_scores_sigmoid"][rows, :-1])
        row, label = (scores > 0.15).nonzero(as_tuple=True)
        one_class = torch.zeros_like(label)
        keep, lowered = soft_nms(boxes[row], scores[row, label], one_class, decay=decay, iou_threshold=0.6)
        key = f"softnms_{decay}_agnostic_img{image}"
        assert len(keep) == len(recorded[f"{key}_scores"])
        torch.testing.assert_close(lowered, torch.from_numpy(recorded[f"{key}_scores"]), rtol=0, atol=2e-5)
        kept = sorted(zip(label[keep].tolist(), boxes[row[keep]].tolist(), strict=True))
        theirs = zip(recorded[f"{key}_classes"].tolist(), recorded[f"{key}_boxes"].tolist(), strict=True)
        for (ours, box), (other, recorded_box) in zip(kept, sorted(theirs), strict=True):
            assert ours == other
            assert box == pytest.approx(recorded_box, abs=1e-2)

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shared import shared
from torchvision.ops import nms

from cvpods_ext.modeling.detection.nms import first_survivors, keep_in_one_call, keep_level_by_level


def loop_over_classes(boxes, scores, classes, threshold):
    """The definition: suppress within each class, best first; boxes come sorted, and of equal scores the first wins."""
    kept = torch.cat(
        [
            (classes == label).nonzero()[:, 0][nms(boxes[classes == label], scores[classes == label], threshold)]
            for label in classes.unique()
        ]
    )
    return kept.sort().values


def crowd(seed, count, num_classes):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(0, 6, (count, 2), generator=generator) * 12 + torch.randn(count, 2, generator=generator)
    side = 10 + 15 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat((centre - side / 2, centre + side / 2), dim=1)
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    return boxes, scores, torch.randint(0, num_classes, (count,), generator=generator)


@example(seed=1274, count=1270, num_classes=1, threshold=0.7)  # two equal scores
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 1500), st.sampled_from([1, 3, 200]), st.sampled_from([0.3, 0.5, 0.7]))
def test_survivors_equal_the_loop_over_classes(seed, count, num_classes, threshold):
    boxes, scores, classes = crowd(seed, count, num_classes)
    expected = loop_over_classes(boxes, scores, classes, threshold)
    for limit in (1, 7, count):
        ours = first_survivors(boxes, classes, threshold, limit)
        assert ours.tolist() == expected[:limit].tolist()


@pytest.mark.parametrize("count", [300, 1500])
def test_survivors_equal_the_record(count):
    ops = {key: torch.from_numpy(value) for key, value in np.load(shared("golden/ops/d2_ops.npz")).items()}
    boxes, scores, classes = (ops[f"bnms{count}_{name}"] for name in ("boxes", "scores", "classes"))
    order = scores.argsort(descending=True, stable=True)
    kept = order[first_survivors(boxes[order], classes[order], 0.5, count)]
    assert kept.tolist() == ops[f"bnms{count}_keep_iou0.5"].tolist()


def test_a_chain_of_overlaps_is_resolved_in_order():
    # each box overlaps only its neighbours: the second goes, so the third stays, and so on
    x = torch.arange(600) * 5.0
    boxes = torch.stack((x, torch.zeros(600), x + 12, torch.full((600,), 10.0)), dim=1)
    kept = first_survivors(boxes, torch.zeros(600, dtype=torch.int64), 0.3, 600)
    assert kept.tolist() == list(range(0, 600, 2))


def test_no_boxes_and_boxes_without_area():
    assert len(first_survivors(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0.5, 10)) == 0
    points = torch.zeros(3, 4)
    assert first_survivors(points, torch.zeros(3, dtype=torch.int64), 0.5, 10).tolist() == [0, 1, 2]


@pytest.mark.parametrize("rule", [keep_level_by_level, keep_in_one_call])
def test_levels_and_images_do_not_suppress_each_other(rule):
    box = torch.tensor([0.0, 0, 10, 10])
    boxes = box.expand(2, 4, 4).contiguous()
    scores = torch.tensor([[4.0, 3, 2, 1], [1, 2, 3, 4]])
    keep = rule(boxes, scores, [2, 2], 0.7)
    assert keep.tolist() == [[True, False, True, False], [False, True, False, True]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_one_call_for_all_groups_equals_the_loop_over_them(seed):
    pairs = [crowd(seed + i, 300, 1) for i in range(3)]
    boxes, scores = (torch.stack([pair[k] for pair in pairs]) for k in (0, 1))
    sizes = [150, 100, 50]
    assert torch.equal(keep_in_one_call(boxes, scores, sizes, 0.5), keep_level_by_level(boxes, scores, sizes, 0.5))

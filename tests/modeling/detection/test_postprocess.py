import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared
from torchvision.ops import nms

from cvpods_ext.modeling.detection.postprocess import RawDetections, Selection, encode_masks, finish, select
from cvpods_ext.structures import Targets

LIMIT = torch.tensor([100.0, 80, 100, 80])


def target(size, original, image_id=1):
    return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), image_id, size, original)


def by_the_loop(scores, boxes, limit, selection):
    """The reference: every pair above the threshold, suppression class by class, best first."""
    boxes = torch.minimum(boxes.clamp(min=0), limit)
    found = []
    for label in range(scores.shape[1]):
        rows = (scores[:, label] > selection.score_threshold).nonzero()[:, 0]
        kept = rows[nms(boxes[rows, label], scores[rows, label], selection.nms_threshold)]
        found += [(scores[row, label].item(), label, *boxes[row, label].tolist()) for row in kept]
    return sorted(found, reverse=True)[: selection.limit]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([1, 5, 300]), st.sampled_from([0.0, 0.02, 0.5]))
def test_selection_equals_the_loop_over_classes(seed, rois, num_classes, threshold):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rois, num_classes, generator=generator) ** 3
    corner = torch.rand(rois, num_classes, 2, generator=generator) * 60 - 5
    boxes = torch.cat((corner, corner + 5 + torch.rand(rois, num_classes, 2, generator=generator) * 50), dim=2)
    selection = Selection(threshold, 0.4, 25)
    found = select(scores, lambda rows, classes: boxes[rows, classes], LIMIT, selection)
    expected = by_the_loop(scores, boxes, LIMIT, selection)
    ours = [
        (s, c, *b) for s, c, b in zip(found.scores.tolist(), found.labels.tolist(), found.boxes.tolist(), strict=True)
    ]
    assert ours == expected


def test_the_threshold_is_strict():
    boxes = torch.tensor([[0.0, 0, 9, 9], [50, 50, 60, 60]])
    scores = torch.tensor([[0.5], [0.25]])
    found = select(scores, lambda rows, _: boxes[rows], LIMIT, Selection(0.25, 0.5, 10))
    assert found.scores.tolist() == [0.5]
    found = select(torch.tensor([[0.0], [0.25]]), lambda rows, _: boxes[rows], LIMIT, Selection(0.0, 0.5, 10))
    assert found.scores.tolist() == [0.25]


def test_pairs_that_are_not_finite_are_dropped():
    boxes = torch.tensor([[0.0, 0, 9, 9], [float("nan"), 0, 60, 60], [20, 20, 30, 30]])
    scores = torch.tensor([[0.5], [0.9], [float("nan")]])
    found = select(scores, lambda rows, _: boxes[rows], LIMIT, Selection(0.1, 0.5, 10))
    assert found.scores.tolist() == [0.5]


def test_an_answer_deep_in_the_list_is_found():
    # 3000 copies of one box hide a single other box behind them
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(3001, 1)
    boxes[-1] += 30
    scores = torch.linspace(1, 0.5, 3001)[:, None]
    found = select(scores, lambda rows, _: boxes[rows], LIMIT, Selection(0.1, 0.5, 2))
    assert found.scores.tolist() == [1.0, 0.5]


def test_pasted_masks_equal_the_record():
    ops = np.load(shared("golden/ops/d2_ops.npz"))
    height, width = ops["paste_hw"].tolist()
    masks, boxes = torch.from_numpy(ops["paste_masks"]), torch.from_numpy(ops["paste_boxes"])
    encoded = encode_masks(masks, boxes, (height, width))
    recorded = np.unpackbits(ops["paste_out_packed"], axis=1)[:, : height * width].reshape(-1, height, width)
    assert recorded.any()
    np.testing.assert_array_equal(np.stack([coco_mask.decode(rle) for rle in encoded]), recorded)


def pasted_by_grid_sample(mask, box, size):
    """The definition: sample the mask at every pixel centre of the whole picture."""
    x0, y0, x1, y1 = box.tolist()
    y = ((torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1)[:, None].expand(size)
    x = ((torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1)[None].expand(size)
    sampled = torch.nn.functional.grid_sample(mask[None, None], torch.stack((x, y), dim=-1)[None], align_corners=False)
    return sampled[0, 0]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(st.floats(0, 40), st.floats(0, 30), st.floats(0.3, 45), st.floats(0.3, 35)),
)
def test_a_pasted_mask_is_the_sampled_picture_encoded(seed, place):
    size = (33, 47)
    x, y, w, h = place
    box = torch.tensor([x, y, min(x + w, 47), min(y + h, 33)])
    mask = torch.rand(28, 28, generator=torch.Generator().manual_seed(seed))
    sampled = pasted_by_grid_sample(mask, box, size)
    rle = encode_masks(mask[None], box[None], size)[0]
    assert rle["size"] == [33, 47]
    clear = (sampled - 0.5).abs() > 1e-4  # the rest may round either way
    assert torch.equal(torch.from_numpy(coco_mask.decode(rle)).bool()[clear], (sampled >= 0.5)[clear])
    again = coco_mask.encode(np.asfortranarray(coco_mask.decode(rle)))
    assert again["counts"] == rle["counts"], "the encoding is the canonical one"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_full_picture_and_an_empty_one(value):
    rle = encode_masks(torch.full((1, 28, 28), value), torch.tensor([[-40.0, -40, 60, 70]]), (20, 30))[0]
    assert coco_mask.area(rle) == 600 * value


def test_boxes_move_to_the_original_picture_and_empty_ones_go():
    raw = RawDetections(
        boxes=torch.tensor([[10.0, 10, 50, 40], [100, 5, 100, 9], [0, 0, 200, 100]]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        labels=torch.tensor([4, 5, 6]),
        mask_probabilities=torch.ones(3, 28, 28),
    )
    final = finish(raw, target((50, 100), (200, 300)))
    assert final.boxes.tolist() == [[30, 40, 150, 160], [0, 0, 300, 200]]
    assert final.labels.tolist() == [4, 6]
    assert final.masks is not None
    assert [mask["size"] for mask in final.masks] == [[200, 300]] * 2
    assert 0.99 < coco_mask.area(final.masks[1]) / (200 * 300) <= 1  # corners fade towards the zeros outside


def test_an_image_without_detections_has_empty_lists():
    raw = RawDetections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 28, 28))
    final = finish(raw, target((50, 100), (200, 300)))
    assert len(final) == 0
    assert final.masks == []


@pytest.mark.parametrize("suppression", ["hard", "linear"])
def test_a_limit_per_class_keeps_the_best_of_each_class_and_no_limit_keeps_all(suppression):
    # 5 boxes apart, each a detection of both classes; class 1 always scores less
    boxes = torch.tensor([[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(5)])
    scores = torch.stack((torch.linspace(0.9, 0.7, 5), torch.linspace(0.5, 0.3, 5)), dim=1)
    limits = torch.tensor([200.0, 200, 200, 200])

    def labels(limit, per_class):
        selection = Selection(0.1, 0.5, limit, suppression, limit_per_class=per_class)
        return select(scores, lambda rows, _: boxes[rows], limits, selection).labels.tolist()

    assert labels(None, None) == [0] * 5 + [1] * 5
    assert labels(None, 3) == [0] * 3 + [1] * 3
    assert labels(4, 3) == [0, 0, 0, 1]
    assert labels(4, None) == [0] * 4
    assert labels(0, None) == []

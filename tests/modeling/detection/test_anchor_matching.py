import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared

from cvpods_ext.modeling.detection import anchor_matching
from cvpods_ext.modeling.detection.anchor_matching import PaddedTargets, match, pad_targets, random_priorities, sample
from cvpods_ext.structures import Targets
from cvpods_ext.structures import boxes as box_ops

CPU = torch.device("cpu")


def in_order(shape, device):
    return torch.linspace(1, 0.5, shape[-1]).expand(tuple(shape))


def by_the_table(quality, low, high, keep_best):
    """The rule, entry by entry, on a table (G, P) of IoUs."""
    objects, boxes = quality.shape
    index, labels = [], []
    for box in range(boxes):
        best = max(range(objects), key=lambda g: (quality[g, box], -g))
        value = quality[best, box]
        label = 0 if value < low else 1 if value >= high else -1
        if keep_best and any(quality[g, box] == quality[g].max() > 0 for g in range(objects)):
            label = 1
        index.append(best)
        labels.append(label)
    return index, labels


def test_thresholds_and_kept_best_by_hand():
    # IoU table of specs: gt x box; boxes that tie a ground truth's best are foreground but keep their own match
    table = torch.tensor([[0.29, 0.3, 0.69, 0.7, 0.1, 0.0], [0.05, 0.2, 0.1, 0.0, 0.2, 0.0]])
    assert by_the_table(table.numpy(), 0.3, 0.7, True) == ([0, 0, 0, 0, 1, 0], [0, 1, -1, 1, 1, 0])
    value, index = table.max(dim=0)
    forced = (table == table.amax(dim=1, keepdim=True)).any(dim=0)
    assert index.tolist() == [0, 0, 0, 0, 1, 0]
    assert anchor_matching.threshold(value, forced, 0.3, 0.7).tolist() == [0, 1, -1, 1, 1, 0]


def test_matching_equals_the_record():
    ops = {key: torch.from_numpy(value) for key, value in np.load(shared("golden/ops/d2_ops.npz")).items()}
    truth = PaddedTargets(ops["match_gt"][None], torch.zeros(1, 6, dtype=torch.int64))
    torch.testing.assert_close(box_ops.pairwise_iou(ops["match_gt"], ops["match_boxes"]), ops["match_iou"])
    for name, low, high, keep_best in (
        ("rpn", 0.3, 0.7, True),
        ("roi0.5", 0.5, 0.5, False),
        ("roi0.6", 0.6, 0.6, False),
    ):
        found = match(truth, ops["match_boxes"], low=low, high=high, keep_best=keep_best)
        assert found.index[0].tolist() == ops[f"match_{name}_idx"].tolist()
        assert found.label[0].tolist() == ops[f"match_{name}_label"].tolist()


def random_boxes(generator, *shape):
    corner = torch.rand(*shape, 2, generator=generator) * 40
    return torch.cat((corner, corner + 1 + torch.rand(*shape, 2, generator=generator) * 30), dim=-1).round()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.booleans())
def test_a_padded_batch_matches_like_the_table_of_each_image(seed, objects, keep_best):
    generator = torch.Generator().manual_seed(seed)
    boxes, gt = random_boxes(generator, 25), random_boxes(generator, 2, objects)
    labels = torch.zeros(2, objects, dtype=torch.int64)
    labels[1, objects // 2 + 1 :] = -1  # padding
    found = match(PaddedTargets(gt, labels), boxes, low=0.3, high=0.7, keep_best=keep_best)
    for image in range(2):
        table = box_ops.pairwise_iou(gt[image, labels[image] >= 0], boxes).numpy()
        index, label = by_the_table(table, 0.3, 0.7, keep_best)
        assert found.index[image].tolist() == index
        assert found.label[image].tolist() == label


def test_many_objects_are_compared_in_parts_with_the_same_result(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    truth = PaddedTargets(random_boxes(generator, 2, 50), torch.zeros(2, 50, dtype=torch.int64))
    boxes = random_boxes(generator, 60)
    whole = match(truth, boxes, low=0.3, high=0.7, keep_best=True)
    monkeypatch.setattr(anchor_matching, "PAIRS_AT_ONCE", 60 * 2 * 7)
    parts = match(truth, boxes, low=0.3, high=0.7, keep_best=True)
    assert torch.equal(whole.index, parts.index)
    assert torch.equal(whole.label, parts.label)


def test_an_image_without_objects_is_all_background():
    targets = [
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 1, (9, 9), (9, 9)),
        Targets(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([5]), 2, (9, 9), (9, 9)),
    ]
    boxes = torch.tensor([[0.0, 0, 4, 4], [5, 5, 9, 9]])
    truth = pad_targets(targets)
    assert truth.labels.tolist() == [[-1], [5]]
    assert match(truth, boxes, low=0.3, high=0.7, keep_best=True).label.tolist() == [[0, 0], [1, 0]]
    empty = pad_targets(targets[:1])
    assert match(empty, boxes, low=0.3, high=0.7, keep_best=True).label.tolist() == [[0, 0]]


def test_sampling_takes_foreground_first_and_fills_up_with_background():
    labels = torch.tensor([[1, 0, -1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, -1]])
    drawn = sample(labels, 4, 0.5, in_order)
    assert drawn.index[0, drawn.valid[0]].tolist() == [0, 3, 1, 5]
    assert drawn.foreground[0, drawn.valid[0]].tolist() == [True, True, False, False]
    assert drawn.index[1, drawn.valid[1]].tolist() == [0, 1, 2, 3]


@given(st.integers(0, 10_000), st.integers(1, 30), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(deadline=None)
def test_a_sample_has_no_box_twice_none_ignored_and_the_right_size(seed, count, fraction):
    torch.manual_seed(seed)
    labels = torch.randint(-1, 2, (2, 20))
    drawn = sample(labels, count, fraction, random_priorities)
    for image in range(2):
        chosen = drawn.index[image, drawn.valid[image]]
        kinds = labels[image, chosen]
        positives, negatives = (labels[image] == 1).sum().item(), (labels[image] == 0).sum().item()
        expected = min(positives, int(count * fraction))
        assert len(set(chosen.tolist())) == len(chosen)
        assert (kinds == 1).sum().item() == expected
        assert (kinds == 0).sum().item() == min(negatives, count - expected)
        assert torch.equal(drawn.foreground[image, drawn.valid[image]], kinds == 1)


def test_every_box_is_drawn_equally_often():
    torch.manual_seed(0)
    labels = torch.zeros(4000, 10, dtype=torch.int64)
    drawn = sample(labels, 3, 0.5, random_priorities)
    counts = torch.bincount(drawn.index[drawn.valid], minlength=10)
    assert counts.sum() == 12_000
    assert (counts - 1200).abs().max() < 5 * (4000 * 0.3 * 0.7) ** 0.5

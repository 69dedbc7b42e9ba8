import pytest
import torch

from cvpods_ext.modeling.detr.boxes import to_corners
from cvpods_ext.modeling.detr.denoising import Denoising, DenoisingSettings, Noise, draw_noise, make_denoising

CLASSES = 9


def objects(counts, seed=0):
    rng = torch.Generator().manual_seed(seed)
    labels = [torch.randint(CLASSES, (count,), generator=rng) for count in counts]
    boxes = [0.3 + 0.2 * torch.rand(count, 4, generator=rng) for count in counts]
    return labels, boxes


def without_noise(rows, num_classes, device):
    del num_classes
    return Noise(torch.ones(rows), torch.zeros(rows, dtype=torch.int64), torch.ones(rows, 4), torch.zeros(rows, 4))


@pytest.mark.parametrize(("counts", "number"), [([0, 0], 100), ([2, 3], 0)])
def test_without_objects_or_switched_off_there_are_no_queries(counts, number):
    made = make_denoising(*objects(counts), CLASSES, DenoisingSettings(number=number))
    assert made.labels.shape == (2, 0)
    assert made.box_logits.shape == (2, 0, 4)
    assert made.groups == 0
    assert made.blocked(5).tolist() == [[False] * 5] * 5


def test_one_object_fills_every_group_of_its_image_only():
    labels, boxes = objects([0, 1])
    made = make_denoising(labels, boxes, CLASSES, DenoisingSettings(number=3, draw=without_noise))
    assert (made.groups, made.slots) == (3, 1)
    assert made.filled.tolist() == [[False] * 6, [True] * 6]
    assert made.labels[1].tolist() == [labels[1].item()] * 6
    assert made.labels[0].tolist() == [0] * 6
    assert torch.equal(made.box_logits[0], torch.zeros(6, 4))  # the box in the middle


def test_three_hundred_objects_make_one_group():
    labels, boxes = objects([300, 2])
    made = make_denoising(labels, boxes, CLASSES, DenoisingSettings(draw=without_noise))
    assert (made.groups, made.slots) == (1, 300)
    assert made.filled.sum(dim=1).tolist() == [600, 4]
    assert torch.equal(made.labels[0, :300], labels[0])
    assert torch.equal(made.labels[0, 300:], labels[0])
    assert made.filled[1].nonzero()[:, 0].tolist() == [0, 1, 300, 301]


@pytest.mark.parametrize(("slots", "groups"), [(1, 100), (3, 33), (50, 2), (51, 1), (101, 1)])
def test_the_fullest_image_decides_the_number_of_groups(slots, groups):
    assert DenoisingSettings(number=100).groups(slots) == groups


def test_positives_stay_within_half_a_side_and_negatives_leave_it():
    labels, boxes = objects([4, 2])
    settings = DenoisingSettings(number=40)
    torch.manual_seed(3)
    made = make_denoising(labels, boxes, CLASSES, settings)
    corners = to_corners(made.box_logits.sigmoid())
    for image, (true_boxes, count) in enumerate(zip(boxes, (4, 2), strict=True)):
        for block in range(2 * made.groups):
            noised = corners[image, block * made.slots : block * made.slots + count]
            moved = (noised - to_corners(true_boxes)).abs() / (true_boxes[:, 2:].repeat(1, 2) / 2)
            if block % 2 == 0:
                assert (moved <= 1 + 1e-4).all()
            else:
                # corners that would leave the image or cross are moved back
                inside = ((noised > 0.0015) & (noised < 0.9985)).all(dim=1)
                wide = (noised[:, 2:] - noised[:, :2] > 0.0015).all(dim=1)
                assert (moved[inside & wide] >= 1 - 1e-3).all()


def test_half_of_the_label_noise_draws_a_new_label():
    labels = [torch.full((1000,), 8)]
    boxes = [torch.full((1000, 4), 0.5)]
    torch.manual_seed(0)
    made = make_denoising(labels, boxes, 8, DenoisingSettings(number=1))
    changed = (made.labels != 8).float().mean().item()
    assert changed == pytest.approx(0.25, abs=0.03)  # none of the 8 classes drawn is class 8
    assert sorted(set(made.labels.flatten().tolist())) == list(range(9))


def test_the_same_seed_makes_the_same_queries():
    labels, boxes = objects([3, 1])
    made: list[Denoising] = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        made.append(make_denoising(labels, boxes, CLASSES, DenoisingSettings()))
    assert torch.equal(made[0].box_logits, made[1].box_logits)
    assert torch.equal(made[0].labels, made[1].labels)
    assert not torch.equal(made[0].box_logits, made[2].box_logits)


def test_who_sees_whom_by_hand():
    labels, boxes = objects([1])
    made = make_denoising(labels, boxes, CLASSES, DenoisingSettings(number=2, draw=without_noise))
    # two groups of a positive and a negative, then one ordinary query
    assert made.blocked(1).int().tolist() == [
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
    ]


def test_draws_have_their_ranges():
    torch.manual_seed(0)
    noise = draw_noise(2000, 3, torch.device("cpu"))
    assert sorted(noise.new_labels.unique().tolist()) == [0, 1, 2]
    assert sorted(noise.signs.unique().tolist()) == [-1.0, 1.0]
    for uniform in (noise.label_chance, noise.box_share):
        assert 0 <= uniform.min() < 0.01
        assert 0.99 < uniform.max() < 1

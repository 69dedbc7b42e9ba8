import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.structures import boxes as box_ops

coordinates = st.floats(-100, 100, width=32)
any_box = st.tuples(coordinates, coordinates, st.floats(0, 90, width=32), st.floats(0, 90, width=32)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
several = st.lists(any_box, max_size=6).map(lambda rows: torch.tensor(rows, dtype=torch.float64).reshape(-1, 4))


def iou_by_hand(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


@settings(deadline=None)
@given(several, several)
def test_iou_equals_the_definition_pair_by_pair(first, second):
    table = box_ops.pairwise_iou(first, second)
    assert table.shape == (len(first), len(second))
    for i, a in enumerate(first.tolist()):
        for j, b in enumerate(second.tolist()):
            assert abs(table[i, j].item() - iou_by_hand(a, b)) < 1e-9


def test_iou_broadcasts_and_leaves_its_arguments_alone():
    first, second = torch.rand(2, 3, 1, 4), torch.rand(2, 1, 5, 4)
    copies = first.clone(), second.clone()
    assert box_ops.iou(first, second).shape == (2, 3, 5)
    assert torch.equal(first, copies[0])
    assert torch.equal(second, copies[1])


def test_boxes_without_area_have_an_iou_of_zero_with_everything():
    point = torch.tensor([[3.0, 3, 3, 3]])
    assert box_ops.pairwise_iou(point, torch.tensor([[0.0, 0, 9, 9], [3, 3, 3, 3]])).tolist() == [[0, 0]]


def test_clipping_keeps_the_far_border_itself():
    boxes = torch.tensor([[-5.0, -5, 200, 200]])
    assert box_ops.clip(boxes, (100, 120)).tolist() == [[0, 0, 120, 100]]
    limits = torch.tensor([[120.0, 100, 120, 100]])
    assert torch.equal(box_ops.clip_to(boxes, limits), box_ops.clip(boxes, (100, 120)))


def test_empty_is_strict():
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1], [5, 5, 4, 9]])
    assert box_ops.nonempty(boxes).tolist() == [True, False, False]
    assert box_ops.nonempty(boxes, threshold=1.0).tolist() == [False, False, False]


@settings(deadline=None)
@given(several)
def test_flipping_twice_and_converting_back_change_nothing(boxes):
    torch.testing.assert_close(box_ops.flip_horizontal(box_ops.flip_horizontal(boxes, 64), 64), boxes)
    torch.testing.assert_close(box_ops.xywh_to_xyxy(box_ops.xyxy_to_xywh(boxes)), boxes)
    torch.testing.assert_close(box_ops.scale(box_ops.scale(boxes, 2, 0.5), 0.5, 2), boxes)


def test_area_by_hand():
    assert box_ops.area(torch.tensor([[1.0, 2, 4, 7], [0, 0, 0, 9]])).tolist() == [15, 0]

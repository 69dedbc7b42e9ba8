import math

import pytest
import torch

from cvpods_ext.modeling.detr.boxes import generalized_iou, inverse_sigmoid, to_centres, to_corners

UNIT = torch.tensor([0.0, 0.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0.0, 0.0, 1.0, 1.0), 1.0),
        ((0.5, 0.0, 1.5, 1.0), 1 / 3),  # the hull is the union
        ((0.0, 0.0, 0.5, 0.5), 0.25),  # inside
        ((1.0, 0.0, 2.0, 1.0), 0.0),  # touching along an edge
        ((1.0, 1.0, 2.0, 2.0), -0.5),  # touching in a corner: hull 4, union 2
        ((3.0, 0.0, 4.0, 1.0), -0.5),  # apart: hull 4, union 2
        ((0.5, 0.5, 0.5, 0.5), 0.0),  # a point inside
        ((2.0, 0.0, 2.0, 1.0), -0.5),  # a line outside: hull 2, union 1
    ],
)
def test_giou_by_hand(other, expected):
    assert generalized_iou(UNIT, torch.tensor(other)).item() == pytest.approx(expected, abs=1e-5)


def test_giou_of_two_points_is_finite_with_a_finite_gradient():
    points = torch.tensor([[0.3, 0.3, 0.3, 0.3]], requires_grad=True)
    value = generalized_iou(points, torch.tensor([[0.3, 0.3, 0.3, 0.3]]))
    value.sum().backward()
    assert value.item() == 0.0
    assert points.grad is not None
    assert points.grad.isfinite().all()


def test_giou_draws_a_distant_box_towards_its_object():
    box = torch.tensor([3.0, 0.0, 4.0, 1.0], requires_grad=True)
    (1 - generalized_iou(box, UNIT)).backward()
    assert box.grad is not None
    assert box.grad[0] > 0  # the near edge should come nearer


def test_gradients_of_giou_are_those_of_finite_differences():
    rng = torch.Generator().manual_seed(0)
    low, side = (torch.rand(6, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    boxes = torch.cat((low, low + side + 0.1), dim=1)
    others = boxes.flip(0)
    assert torch.autograd.gradcheck(lambda x: generalized_iou(x, others), boxes.clone().requires_grad_())


def test_centres_and_corners_are_inverse():
    corners = torch.tensor([[0.125, 0.25, 0.5, 1.0], [0.5, 0.5, 0.5, 0.5]])
    assert to_centres(corners).tolist() == [[0.3125, 0.625, 0.375, 0.75], [0.5, 0.5, 0.0, 0.0]]
    assert torch.equal(to_corners(to_centres(corners)), corners)


def test_logits_are_limited_to_a_thousandth_of_both_ends():
    x = torch.tensor([-1.0, 0.0, 0.5, 0.75, 1.0, 2.0])
    limit = math.log(1000)
    assert inverse_sigmoid(x).tolist() == pytest.approx([-limit, -limit, 0.0, math.log(3), limit, limit], rel=1e-5)

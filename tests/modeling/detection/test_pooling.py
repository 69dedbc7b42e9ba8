import numpy as np
import pytest
import torch
from shared import shared
from torchvision.ops import roi_align

from cvpods_ext.modeling.detection.pooling import RoIPooler, roi_align_without_waiting

STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize(
    ("side", "level"), [(0, 0), (1, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (448, 3), (5000, 3)]
)
def test_the_level_suits_the_side_of_the_box(side, level):
    assert RoIPooler(7, STRIDES).levels(torch.tensor([[10.0, 10, 10 + side, 10 + side]])).tolist() == [level]


@pytest.mark.parametrize("size", [7, 14])
def test_pooled_boxes_equal_the_record(size):
    ops = {key: torch.from_numpy(value) for key, value in np.load(shared("golden/ops/d2_ops.npz")).items()}
    boxes = torch.cat((ops["pool_boxes0"], ops["pool_boxes1"]))
    image = torch.tensor([0] * len(ops["pool_boxes0"]) + [1] * len(ops["pool_boxes1"]))
    pooler = RoIPooler(size, STRIDES)
    assert pooler.levels(boxes).tolist() == ops["pool_levels"].tolist()
    features = [ops[f"pool_feat_p{level}"] for level in range(2, 6)]
    torch.testing.assert_close(pooler(features, boxes, image), ops[f"pool_out{size}"], rtol=1e-5, atol=1e-6)


def test_no_boxes_give_no_rows_and_a_gradient_of_zero():
    features = [torch.rand(1, 3, 32 // 2**i, 32 // 2**i, requires_grad=True) for i in range(4)]
    pooled = RoIPooler(7, STRIDES)(features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert features[0].grad is not None
    assert features[0].grad.abs().sum() == 0


def test_the_gradient_is_the_one_of_finite_differences():
    features = [torch.rand(1, 2, 8 // 2**i, 8 // 2**i, dtype=torch.float64, requires_grad=True) for i in range(2)]
    boxes = torch.tensor([[1.0, 2, 20, 30], [0, 0, 200, 200], [5, 5, 6, 6]], dtype=torch.float64)
    pooler = RoIPooler(2, (4, 8))
    image = torch.zeros(3, dtype=torch.int64)
    assert torch.autograd.gradcheck(lambda *maps: pooler(maps, boxes, image), features)


def test_levels_are_pooled_without_counting_their_boxes_bit_by_bit_as_one_after_the_other():
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 3, 64 // 2**i, 64 // 2**i, generator=generator, requires_grad=True) for i in range(4)]
    copies = [map_.detach().clone().requires_grad_() for map_ in features]
    corner = torch.rand(50, 2, generator=generator) * 250 - 20
    boxes = torch.cat((corner, corner + torch.rand(50, 2, generator=generator) * 600), dim=1)
    boxes[0] = torch.tensor([30.0, 30, 30, 30])
    rois = torch.cat((torch.randint(0, 2, (50, 1), generator=generator).float(), boxes), dim=1)
    levels = RoIPooler(7, STRIDES).levels(boxes)
    assert len(levels.unique()) == 4
    pooled = roi_align_without_waiting(features, STRIDES, rois, levels, 7)
    expected = torch.zeros_like(pooled)
    for i, (map_, stride) in enumerate(zip(copies, STRIDES, strict=True)):
        part = roi_align(map_, rois[levels == i], 7, 1 / stride, sampling_ratio=0, aligned=True)
        expected = expected.index_put((levels == i,), part)
    assert torch.equal(pooled, expected)
    weights = torch.randn(pooled.shape, generator=generator)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(features, copies, strict=True):
        assert torch.equal(ours.grad, theirs.grad)

"""RoIAlign by weighted sums against torchvision's kernel, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from cvpods_ext.modeling.detection import roi_align as ours
from cvpods_ext.modeling.detection.roi_align import roi_align_rows

STRIDES = (4, 8)


def reference(features, boxes, image, levels, size):
    out = boxes.new_zeros(len(boxes), features[0].shape[1], size, size)
    for level, stride in enumerate(STRIDES):
        rows = (levels == level).nonzero()[:, 0]
        rois = torch.cat((image[rows, None].to(boxes.dtype), boxes[rows]), dim=1)
        pooled = roi_align(features[level], rois, size, 1 / stride, sampling_ratio=0, aligned=True)
        out = out.index_copy(0, rows, pooled)
    return out


def example(seed, count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    features = [
        torch.randn(2, 5, 24 // 2**i, 40 // 2**i, generator=generator, dtype=torch.float64).to(dtype) for i in range(2)
    ]
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([200.0, 130]) - 20
    side = torch.exp(torch.randn(count, 2, generator=generator, dtype=torch.float64) * 1.5 + 3)
    boxes = torch.cat((corner, corner + side), dim=1).to(dtype)
    image = torch.randint(0, 2, (count,), generator=generator)
    return features, boxes, image, torch.randint(0, 2, (count,), generator=generator)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([1, 2, 7]))
def test_values_equal_torchvision_also_outside_the_map(seed, count, size):
    features, boxes, image, levels = example(seed, count, torch.float64)
    expected = reference(features, boxes, image, levels, size)
    torch.testing.assert_close(roi_align_rows(features, STRIDES, boxes, image, levels, size), expected)


def test_float32_values_differ_by_rounding_only():
    features, boxes, image, levels = example(0, 200)
    expected = reference(features, boxes, image, levels, 7)
    assert (roi_align_rows(features, STRIDES, boxes, image, levels, 7) - expected).abs().max() < 2e-5


def test_gradients_equal_torchvision():
    features, boxes, image, levels = example(1, 50, torch.float64)
    gradients = []
    for function in (reference, lambda f, *rest: roi_align_rows(f, STRIDES, *rest)):
        leaves = [level.clone().requires_grad_() for level in features]
        out = function(leaves, boxes, image, levels, 7)
        (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("box", [[10.0, 10, 10, 10], [30, 20, 10, 10], [-900, -900, -800, -800], [0, 0, 160, 96]])
def test_odd_boxes_equal_torchvision(box):
    features, *_ = example(2, 1)
    boxes, image, levels = torch.tensor([box], dtype=torch.float32), torch.tensor([1]), torch.tensor([0])
    expected = reference(features, boxes, image, levels, 7)
    torch.testing.assert_close(
        roi_align_rows(features, STRIDES, boxes, image, levels, 7), expected, atol=1e-5, rtol=1e-5
    )


def test_a_box_that_is_not_a_number_is_no_crash():
    features, *_ = example(2, 1)
    nan = torch.full((1, 4), float("nan"))
    out = roi_align_rows(features, STRIDES, nan, torch.tensor([0]), torch.tensor([1]), 7)
    assert out.shape == (1, 5, 7, 7)


def test_many_products_are_summed_in_parts_with_the_same_result(monkeypatch):
    features, boxes, image, levels = example(3, 60)
    whole = roi_align_rows(features, STRIDES, boxes, image, levels, 7)
    monkeypatch.setattr(ours, "PRODUCTS_AT_ONCE", 5000)
    torch.testing.assert_close(roi_align_rows(features, STRIDES, boxes, image, levels, 7), whole)


def test_half_precision_maps_are_pooled_in_float32():
    features, boxes, image, levels = example(4, 20)
    half = [level.bfloat16() for level in features]
    out = roi_align_rows(half, STRIDES, boxes, image, levels, 7)
    assert out.dtype == torch.bfloat16
    expected = roi_align_rows([level.float() for level in half], STRIDES, boxes, image, levels, 7)
    torch.testing.assert_close(out.float(), expected, atol=0.02, rtol=0.01)

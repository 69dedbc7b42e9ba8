import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared

from cvpods_ext.modeling.detection.box_coding import BoxCoder

SOURCE, TARGET = torch.tensor([[10.0, 20, 50, 100]]), torch.tensor([[15.0, 18, 60, 90]])


def test_the_published_deltas():
    deltas = BoxCoder((10, 10, 5, 5)).encode(SOURCE, TARGET)
    torch.testing.assert_close(deltas, torch.tensor([[1.875, -0.75, 0.588915, -0.526803]]), atol=1e-5, rtol=0)


def test_a_huge_width_is_limited_and_a_small_height_is_not():
    boxes = BoxCoder((10, 10, 5, 5)).decode(torch.tensor([[1.0, 2, 50, -3]]), SOURCE)
    torch.testing.assert_close(boxes, torch.tensor([[-1216, 54.0475, 1284, 97.9525]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("weight", [1, 10, 20, 30])
def test_coding_equals_the_record(weight):
    ops = {key: torch.from_numpy(value) for key, value in np.load(shared("golden/ops/d2_ops.npz")).items()}
    coder = BoxCoder((weight, weight, weight if weight == 1 else weight / 2, weight if weight == 1 else weight / 2))
    torch.testing.assert_close(coder.encode(ops["b2b_src"], ops["b2b_dst"]), ops[f"b2b_get_{weight}"])
    decoded = coder.decode(ops["b2b_deltas_in_k2"].view(-1, 2, 4), ops["b2b_src"][:, None])
    torch.testing.assert_close(decoded.flatten(1), ops[f"b2b_apply_{weight}"], rtol=1e-5, atol=1e-3)


boxes = st.tuples(*[st.floats(0, 500)] * 2, *[st.floats(1, 400)] * 2).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(deadline=None)
@given(boxes, boxes)
def test_decoding_undoes_encoding(source, target):
    source, target = torch.tensor([source]), torch.tensor([target])
    coder = BoxCoder((10, 10, 5, 5))
    ratio = (target[:, 2:] - target[:, :2]) / (source[:, 2:] - source[:, :2])
    if (ratio < 1000 / 16).all():
        torch.testing.assert_close(coder.decode(coder.encode(source, target), source), target, atol=2e-2, rtol=1e-4)

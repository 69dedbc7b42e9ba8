import math

import pytest
import torch

from cvpods_ext.modeling.detr.position import levels_of, sine_map, sine_of_boxes


def levels(width, height, padded, sizes):
    return levels_of(torch.tensor([[width, height, width, height]], dtype=torch.float32), padded, sizes)


def test_a_cell_is_filled_if_its_first_pixel_is():
    # 90 of 128 columns at stride 16 reach into the sixth cell, at stride 64 into the second
    found = levels(90, 128, (128, 128), [(8, 8), (2, 2)])
    assert found.filled.tolist() == [[[6.0, 8.0], [2.0, 2.0]]]
    assert found.padding[0][0, 0].tolist() == [False] * 6 + [True] * 2
    assert not found.padding[0][0, :, :6].any()
    assert found.valid_ratios[0, :, 0].tolist() == [0.75, 1.0]


def test_cells_of_a_size_that_does_not_divide_the_batch_take_the_pixel_below():
    # 15 cells of 100 pixels: cell i stands for pixel floor(i * 100 / 15); pixel 66 is the first not below 61
    found = levels(61, 100, (100, 100), [(15, 15)])
    assert found.filled[0, 0].tolist() == [10.0, 15.0]


def test_references_are_centres_in_every_level_of_the_padded_map():
    found = levels(90, 128, (128, 128), [(8, 8), (2, 2)])
    points = found.reference_points()
    assert points.shape == (1, 68, 2, 2)
    # the third cell of the first row: 2.5 of 6 filled columns, 0.5 of 8 rows
    assert points[0, 2].tolist() == [
        pytest.approx([2.5 / 6 * 0.75, 0.5 / 8]),
        pytest.approx([2.5 / 6 * 1.0, 0.5 / 8]),
    ]
    # the last token is the last cell of the second level
    assert points[0, -1, 1].tolist() == pytest.approx([0.75, 0.75])


def test_boxes_are_encoded_in_the_order_y_x_w_h():
    encoded = sine_of_boxes(torch.tensor([[[0.1, 0.2, 0.3, 0.4]]]), 4).view(4, 4)
    for row, value in zip(encoded, (0.2, 0.1, 0.3, 0.4), strict=True):
        angle = 2 * math.pi * value
        slow = angle / 100  # 10,000 to the power of one half
        expected = [math.sin(angle), math.cos(angle), math.sin(slow), math.cos(slow)]
        assert row.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_map_encoding_spans_one_turn_over_the_filled_part():
    padding = torch.zeros(1, 4, 6, dtype=torch.bool)
    padding[:, :, 3:] = True
    encoded = sine_map(padding, 8)
    assert encoded.shape == (1, 8, 4, 6)
    # y in the first half of the channels: the third of four rows; x in the second: the first of three columns
    assert encoded[0, 0, 2, 0].item() == pytest.approx(math.sin(2 * math.pi * 2.5 / 4), abs=1e-5)
    assert encoded[0, 1, 2, 0].item() == pytest.approx(math.cos(2 * math.pi * 2.5 / 4), abs=1e-5)
    assert encoded[0, 4, 2, 0].item() == pytest.approx(math.sin(2 * math.pi * 0.5 / 3), abs=1e-5)

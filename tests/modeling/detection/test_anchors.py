import numpy as np
import torch
from shared import shared

from cvpods_ext.modeling.detection.anchors import AnchorGenerator

STRIDES, SIZES = (4, 8, 16, 32, 64), (32, 64, 128, 256, 512)


def maps(*shapes):
    return [torch.zeros(1, 1, *shape) for shape in shapes]


def test_the_published_cell_of_p2_and_the_step_to_its_neighbour():
    first = AnchorGenerator(STRIDES[:1], SIZES[:1])(maps((1, 2)))[0]
    by_hand = [[-22.6274, -11.3137, 22.6274, 11.3137], [-16, -16, 16, 16], [-11.3137, -22.6274, 11.3137, 22.6274]]
    torch.testing.assert_close(first[:3], torch.tensor(by_hand), atol=1e-4, rtol=0)
    torch.testing.assert_close(first[3:], first[:3] + torch.tensor([4.0, 0, 4, 0]))


def test_all_levels_equal_the_record():
    ops = np.load(shared("golden/ops/d2_ops.npz"))
    generator = AnchorGenerator(STRIDES, SIZES)
    shapes = {15: (3, 5), 6: (2, 3), 2: (1, 2), 1: (1, 1)}
    grids = [shapes[len(ops[f"grid_anchors_p{level}"]) // 3] for level in range(2, 7)]
    for level, ours in enumerate(generator(maps(*grids)), start=2):
        np.testing.assert_allclose(generator.cell_anchors[level - 2].numpy(), ops[f"cell_anchors_p{level}"], rtol=1e-6)
        np.testing.assert_allclose(ours.numpy(), ops[f"grid_anchors_p{level}"], rtol=1e-6, atol=1e-5)


def test_another_size_of_image_gets_other_anchors():
    generator = AnchorGenerator(STRIDES[:1], SIZES[:1])
    assert len(generator(maps((2, 2)))[0]) == 12
    assert len(generator(maps((3, 2)))[0]) == 18
    assert len(generator(maps((2, 2)))[0]) == 12


def test_cell_anchors_are_saved_under_their_published_names():
    assert list(AnchorGenerator(STRIDES, SIZES).state_dict()) == [f"cell_anchors.{i}" for i in range(5)]

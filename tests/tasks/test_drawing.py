"""Pictures: objects are where they should be, captions inside the picture, small images enlarged."""

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from PIL import Image

from cvpods_ext.structures import Detections, PolygonMasks, Targets
from cvpods_ext.tasks.detection_drawing import draw_detections, draw_targets
from cvpods_ext.tasks.drawing import MASK_OPACITY, Shape, contact_sheet, draw_shapes, label_colour, to_picture

NAMES = ["a_class_with_quite_a_long_name", "b"]


def detections(masks=True, boxes=((20.0, 30.0, 60.0, 70.0), (5.0, 5.0, 15.0, 15.0)), size=(96, 80)):
    bitmaps = np.zeros((*size, len(boxes)), dtype=np.uint8, order="F")
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        bitmaps[int(y1) : int(y2), int(x1) : int(x2), i] = 1
    return Detections(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        scores=torch.tensor([0.9, 0.2])[: len(boxes)],
        labels=torch.tensor([1, 0])[: len(boxes)],
        image_id=1,
        size=size,
        masks=coco_mask.encode(bitmaps) if masks else None,
    )


def grey(size=(96, 80)):
    return torch.full((3, *size), 128, dtype=torch.uint8)


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_kept():
    assert draw_detections(grey(), detections(), NAMES).size == (400, 480)
    assert draw_detections(grey((600, 700)), detections(size=(600, 700)), NAMES).size == (700, 600)


def test_the_mask_is_tinted_inside_and_nothing_outside():
    picture = np.asarray(draw_detections(grey(), detections(), NAMES))
    inside = picture[50 * 5 + 2, 40 * 5 + 2]
    expected = 128 + MASK_OPACITY * (np.array(label_colour(1)) - 128)
    np.testing.assert_allclose(inside, expected, atol=2)
    assert (picture[85 * 5, 70 * 5] == 128).all()


def test_the_edge_of_a_mask_has_the_full_colour_and_its_inside_keeps_that_of_the_object():
    mask = np.zeros((96, 96), dtype=bool)
    mask[30:60, 20:70] = True
    drawn = draw_shapes(
        Image.new("RGB", (96, 96), (128, 128, 128)), [Shape((0, 0, 2, 2), "", (255, 0, 0), mask)], side=96
    )
    picture = np.asarray(drawn)
    assert (picture[30, 40] == (255, 0, 0)).all()
    assert (picture[45, 69] == (255, 0, 0)).all()
    assert (picture[29, 40] == 128).all()
    assert abs(int(picture[45, 45, 2]) - 128) < 40


def test_low_scores_are_left_out_and_the_limit_keeps_the_best():
    without = np.asarray(draw_detections(grey(), detections(), NAMES, score_threshold=0.3))
    assert (without[10 * 5, 10 * 5] == 128).all()
    both = np.asarray(draw_detections(grey(), detections(), NAMES, score_threshold=0.1))
    assert not (both[10 * 5, 10 * 5] == 128).all()
    best = np.asarray(draw_detections(grey(), detections(), NAMES, score_threshold=0.1, max_boxes=1))
    np.testing.assert_array_equal(best, without)


def test_box_edges_have_the_colour_of_the_class():
    picture = np.asarray(draw_detections(grey(), detections(masks=False), NAMES))
    assert tuple(picture[50 * 5, 20 * 5]) == label_colour(1)
    assert tuple(picture[50 * 5, 60 * 5 - 1]) == label_colour(1)
    assert (picture[50 * 5, 40 * 5] == 128).all()


def test_captions_at_every_border_stay_inside():
    corners = ((0.0, 0.0, 3.0, 3.0), (77.0, 93.0, 80.0, 96.0))
    found = detections(boxes=corners)
    found.labels[:] = 0
    picture = np.asarray(draw_detections(grey(), found, NAMES, score_threshold=0.0))
    coloured = (picture == np.array(label_colour(0))).all(axis=2)
    assert coloured[:60].sum() > 1000  # a whole caption, not a clipped one
    assert coloured[-60:].sum() > 1000


def test_no_detections_give_the_image_itself():
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 1, (96, 80), [])
    picture = np.asarray(draw_detections(grey(), empty, NAMES))
    assert (picture == 128).all()


def test_targets_with_polygons_are_drawn():
    box = [10.0, 10.0, 40.0, 40.0]
    masks = PolygonMasks.from_lists([[[10, 10, 40, 10, 40, 40, 10, 40]]])
    targets = Targets(torch.tensor([box]), torch.tensor([1]), 1, (96, 80), (96, 80), masks)
    picture = np.asarray(draw_targets(grey(), targets, NAMES))
    assert not (picture[30 * 5, 30 * 5] == 128).all()
    assert (picture[60 * 5, 60 * 5] == 128).all()


def test_bgr_images_come_out_in_their_colours():
    image = np.zeros((3, 4, 4), dtype=np.uint8)
    image[0] = 200
    assert to_picture(image, "BGR").getpixel((0, 0)) == (0, 0, 200)
    assert to_picture(image).getpixel((0, 0)) == (200, 0, 0)


def test_a_wrong_image_and_a_wrong_mask_are_refused():
    with pytest.raises(ValueError, match=r"\(3, H, W\) uint8"):
        to_picture(np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="mask of"):
        draw_detections(grey((50, 50)), detections(), NAMES)


def test_a_contact_sheet_holds_every_picture_and_needs_a_title_for_each():
    pictures = [Image.new("RGB", (60, 40), (200, 0, 0)) for _ in range(5)]
    sheet = np.asarray(contact_sheet(pictures, [f"picture {k}" for k in range(5)]))
    assert ((sheet == (200, 0, 0)).all(axis=2)).sum() == 5 * 60 * 40
    with pytest.raises(ValueError, match="5 images but 1 titles"):
        contact_sheet(pictures, ["one"])


def test_neighbouring_labels_look_different():
    for label in range(60):
        first, second = np.array(label_colour(label)), np.array(label_colour(label + 1))
        assert np.abs(first - second).sum() > 60

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from evaluation_cases import box_mask, rle_json, synthetic, write_case
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection.boundary_iou import boundaries
from cvpods_ext.evaluation.detection.evaluate import evaluate


def edges(bitmap):
    return coco_mask.decode(boundaries([coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))])[0]).astype(bool)


def test_the_boundary_of_a_square_is_a_ring():
    bitmap = np.zeros((100, 100), dtype=bool)
    bitmap[20:60, 30:70] = True
    assert edges(bitmap).sum() == 40**2 - 34**2  # 2 % of the diagonal, 141, is 3 pixels
    assert not edges(bitmap)[23:57, 33:67].any()


def test_the_border_of_the_image_is_a_contour_and_an_empty_mask_has_none():
    full = np.ones((100, 100), dtype=bool)
    assert edges(full).sum() == 100**2 - 94**2
    assert not edges(~full).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_boundary_equals_repeated_erosion_of_the_whole_image(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(30, 160, 2)
    bitmap = np.zeros((height, width), dtype=bool)
    for _ in range(rng.integers(1, 4)):
        y, x = rng.integers(0, height), rng.integers(0, width)
        bitmap[y : y + rng.integers(1, 60), x : x + rng.integers(1, 60)] = True
    reach = max(1, round(0.02 * float(np.hypot(height, width))))
    eroded = binary_erosion(np.pad(bitmap, 1), np.ones((3, 3)), iterations=reach)[1:-1, 1:-1]
    np.testing.assert_array_equal(edges(bitmap), bitmap & ~eroded)


def one_object(tmp_path, found, side=300):
    box = [20.0, 20.0, 200.0, 200.0]
    image = {"id": 1, "height": side, "width": side, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 200.0**2}
    annotations = {
        "images": [image],
        "categories": [{"id": 1, "name": "a", "frequency": "f"}],
        "annotations": [{**annotation, "segmentation": box_mask(side, side, box)}],
    }
    detection = {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5, "segmentation": rle_json(found)}
    return write_case(tmp_path, annotations, [detection])


def test_a_coarse_contour_of_a_large_object_passes_by_mask_but_not_by_boundary(tmp_path):
    found = np.zeros((300, 300), dtype=bool)
    found[14:226, 14:226] = True  # six pixels too large all round, the width of the boundary
    result = evaluate(*one_object(tmp_path, found), families=("segm", "boundary"))
    iou = 200**2 / 212**2  # 0.89: thresholds up to 0.85
    assert 0.85 < iou < 0.9
    assert result["segm"]["AP"] == pytest.approx(80.0)
    assert result["boundary"]["AP"] == 0.0


def test_a_hollow_mask_passes_by_neither(tmp_path):
    found = np.zeros((300, 300), dtype=bool)
    found[20:220, 20:220] = True
    found[40:200, 40:200] = False
    result = evaluate(*one_object(tmp_path, found), families=("segm", "boundary"))
    assert result["segm"]["AP"] == result["boundary"]["AP"] == 0.0


def test_boundary_ap_is_never_above_mask_ap_and_only_ours(tmp_path):
    case = write_case(tmp_path, *synthetic(1))
    result = evaluate(*case, families=("segm", "boundary"))
    assert 0 < result["boundary"]["AP"] < result["segm"]["AP"]
    with pytest.raises(ConfigError, match="boundary"):
        evaluate(*case, families=("boundary",), evaluator="hotcoco")

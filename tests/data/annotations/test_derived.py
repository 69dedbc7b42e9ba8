"""What a file does not state is derived, what reaches too far is cut, and nothing of it changes a sound annotation."""

import gzip

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from tiny_dataset import SQUARE, annotation, categories, image, write_json

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog
from cvpods_ext.data.annotations import annotations
from cvpods_ext.errors import DataError

TRIANGLE = [[10.0, 10.0, 30.0, 10.0, 10.0, 22.0]]  # half of 20 x 12
RLE = {"size": [48, 64], "counts": [48 * 2 + 3, 10, 38, 10, 48 * 64 - 157]}  # columns 2 and 3, rows 3 to 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))


def load(folder, entries, masks=True, images=None):
    path = write_json(folder / "x.json", images or [image(1)], entries, categories(3))
    files = DatasetFiles(annotations=str(path), images=str(folder))
    return annotations.load(catalog.resolve(files, folder), masks)


@pytest.mark.parametrize(
    ("segmentation", "box", "area"),
    [(TRIANGLE, [10, 10, 30, 22], 120.0), (SQUARE + TRIANGLE, [10, 10, 30, 30], 520.0), (RLE, [2, 3, 4, 13], 20.0)],
)
def test_boxes_and_areas_are_those_of_the_masks(segmentation, box, area, tmp_path):
    loaded = load(tmp_path, [annotation(1, 1, 3, bbox=None, area=None, segmentation=segmentation)])
    assert loaded.instances(0).boxes.tolist() == [box]
    assert loaded.instances(0).areas.tolist() == [area]
    assert loaded.facts["noted"] == {
        "box that is absent, derived from the mask": 1,
        "area that is absent or no number >= 0, derived from mask or box": 1,
    }


def test_a_derived_box_stays_in_its_image(tmp_path):
    beyond = [[-5.0, 10.0, 70.0, 10.0, 70.0, 60.0]]
    loaded = load(tmp_path, [annotation(1, 1, 3, bbox=None, segmentation=beyond)])
    assert loaded.instances(0).boxes.tolist() == [[0, 10, 64, 48]]


def test_an_area_without_a_mask_is_that_of_the_box(tmp_path):
    loaded = load(tmp_path, [annotation(1, 1, 3, area="N/A", segmentation=None)])
    assert loaded.instances(0).areas.tolist() == [400.0]


def test_numbers_flags_and_ids_may_be_text(tmp_path):
    entry = annotation("1", "1", 3.0, bbox=["10", 10, "20.0", 20], area="400", iscrowd="0", segmentation=[["10"] * 6])
    loaded = load(tmp_path, [entry], images=[image("1", width="64.0", height=48.0)])
    found = loaded.instances(0)
    assert loaded.size(0) == (48, 64)
    assert found.boxes.tolist() == [[10, 10, 30, 30]]
    assert not found.crowd.any()
    assert found.vertices.tolist() == [[10, 10]] * 3


def test_a_polygon_that_stands_alone_is_one_polygon(tmp_path):
    loaded = load(tmp_path, [annotation(1, 1, 3, segmentation=SQUARE[0])])
    assert loaded.instances(0).vertices.reshape(-1).tolist() == SQUARE[0]
    assert list(loaded.facts["noted"].values()) == [1]


@pytest.mark.parametrize("far", [350_000_000.0, 5_000.0, 200.0])
def test_a_polygon_that_reaches_far_is_cut_off_and_covers_the_same_pixels(far, tmp_path):
    ring = [[10.0, 10.0, far, 10.0, far, 30.0, 10.0, 30.0]]
    loaded = load(tmp_path, [annotation(1, 1, 3, bbox=[10, 10, 54, 20], segmentation=ring), annotation(2, 1, 3)])
    polygons = loaded.polygons(0)
    assert np.abs(polygons.vertices).max() <= 2 * 64
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([r.tolist() for r in polygons.rings(0)], 48, 64)))
    expected = np.zeros((48, 64), bool)
    expected[10:30, 10:] = True
    np.testing.assert_array_equal(drawn.astype(bool), expected)
    assert [r.tolist() for r in polygons.rings(1)] == SQUARE  # its neighbour is as it was
    assert loaded.facts["noted"]["polygon that reaches far beyond its image, cut off there"] == 1


@pytest.mark.parametrize("third", [12.7, 12.123456789, 1e-7])
def test_polygons_keep_all_their_digits(third, tmp_path):
    ring = [0.1, 0.2, third, 0.3, 12.3, 12.1]
    loaded = load(tmp_path, [annotation(1, 1, 3, segmentation=[ring])])
    assert loaded.polygons(0).vertices.reshape(-1).tolist() == ring


def test_a_network_of_boxes_uses_objects_whose_masks_are_broken(tmp_path):
    entries = [annotation(1, 1, 3, segmentation=[[1, 2]]), annotation(2, 1, 3)]
    assert load(tmp_path, entries).instances(0).annotation_ids.tolist() == [2]
    loaded = load(tmp_path, entries, masks=False)
    assert loaded.instances(0).annotation_ids.tolist() == [1, 2]
    assert loaded.dropped == {}
    assert len(loaded.index.label) == len(loaded.boxes()) == 2
    assert len(loaded.every().label) == 2


def test_images_without_a_name_cannot_be_read(tmp_path):
    for name in (None, "\ud800", "a\0.png", 5):
        with pytest.raises(DataError, match="1 images have neither a file_name nor a coco_url"):
            load(tmp_path, [], images=[image(1, file_name=name), image(2)])


def test_a_compressed_file_gives_the_same_annotations(tmp_path):
    plain = load(tmp_path, [annotation(1, 1, 3)])
    packed = tmp_path / "y.json.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + (tmp_path / "x.json").read_bytes()))
    loaded = catalog.load(DatasetFiles(annotations=str(packed), images=str(tmp_path)), tmp_path)
    assert loaded.paths.name == "y"
    assert loaded.instances(0).boxes.tolist() == plain.instances(0).boxes.tolist()

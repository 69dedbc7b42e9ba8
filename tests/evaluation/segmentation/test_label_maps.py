"""Predicted label maps on disk."""

import numpy as np
import pytest
from PIL import Image

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.segmentation.label_maps import LabelMapFolder

LABELS = np.array([[0, 1, 2], [2, 2, 149]], dtype=np.uint8)


def folder(tmp_path, first=0):
    return LabelMapFolder(tmp_path / "maps", {1: "a", 2: "street/b"}, first)


@pytest.mark.parametrize("first", [0, 1])
def test_what_is_written_is_read(tmp_path, first):
    maps = folder(tmp_path, first)
    assert maps.completed() == []
    maps.write(2, LABELS)
    assert maps.completed() == [2]
    assert np.array_equal(maps.read(2, (2, 3), 150), LABELS)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "maps" / "street" / "b.png")), LABELS + first)


def test_large_areas_take_little_room(tmp_path):
    maps = folder(tmp_path)
    maps.write(1, np.zeros((1000, 1000), np.uint8))
    assert maps.path(1).stat().st_size < 5000


def test_a_map_of_another_test_is_refused(tmp_path):
    maps = folder(tmp_path)
    maps.claim({"weights": "a", "ratios": (1.0,)})
    maps.claim({"weights": "a", "ratios": [1.0]})
    with pytest.raises(DataError, match="other settings"):
        maps.claim({"weights": "b", "ratios": [1.0]})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:30]), "cannot be read"),
        (lambda path: path.write_bytes(b"%!PS"), "cannot be read"),
        (lambda path: Image.fromarray(np.zeros((3, 3), np.uint8)).save(path), r"\(3, 3\)"),
        (lambda path: Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(path), r"\(2, 3, 3\)"),
        (lambda path: Image.fromarray(np.full((2, 3), 151, np.uint8)).save(path), "value 151"),
        (lambda path: Image.fromarray(np.zeros((2, 3), np.uint8)).save(path), "value 0"),
        (lambda path: path.unlink(), "cannot be read"),
    ],
)
def test_a_damaged_map_is_a_message(tmp_path, damage, message):
    maps = folder(tmp_path, first=1)
    maps.write(1, LABELS)
    damage(maps.path(1))
    with pytest.raises(DataError, match=message):
        maps.read(1, (2, 3), 150)

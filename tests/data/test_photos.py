"""Pictures without annotations: which files are meant, and the pixels of each kind of picture."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from cvpods_ext.data.photos import Photos, find, to_pixels
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.structures.segmentation import LabelMap

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def saved(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path, **options)
    return path


def test_a_folder_a_pattern_and_a_file_name_each_image_once(tmp_path):
    a, b = saved(tmp_path / "a.png"), saved(tmp_path / "below" / "b.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    assert find([tmp_path]) == [a, b]
    assert find([b, str(tmp_path / "*.png"), tmp_path]) == [b, a]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    odd = saved(tmp_path / "[1].png")
    assert find([odd]) == [odd]


@pytest.mark.parametrize(
    ("name", "message"), [("none.png", "does not exist"), ("*.png", "no file is named like"), (".", "holds no image")]
)
def test_a_name_with_nothing_behind_it_is_refused_at_once(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        find([tmp_path / name])


def test_file_pil_image_array_and_tensor_are_the_same_pixels(tmp_path):
    expected = torch.from_numpy(PIXELS).permute(2, 0, 1)
    path = saved(tmp_path / "a.png")
    for picture in (path, str(path), Image.fromarray(PIXELS), PIXELS, expected):
        assert torch.equal(to_pixels(picture, "RGB"), expected)
        assert torch.equal(to_pixels(picture, "BGR"), expected.flip(0))


def test_a_grey_array_has_three_equal_channels():
    assert torch.equal(to_pixels(PIXELS[..., 0], "RGB"), torch.from_numpy(PIXELS[..., 0]).repeat(3, 1, 1))


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn clockwise
    path = saved(tmp_path / "turned.png", exif=exif)
    expected = torch.from_numpy(np.rot90(PIXELS, -1).copy()).permute(2, 0, 1)
    assert torch.equal(to_pixels(path, "RGB"), expected)


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3)), torch.zeros(4, 5, 3, dtype=torch.uint8), 7]
)
def test_other_pixels_are_refused_with_what_they_are(picture):
    with pytest.raises(ConfigError, match=r"uint8|got int"):
        to_pixels(picture, "RGB")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no jpeg")
    with pytest.raises(DataError, match=r"bad\.jpg cannot be decoded"):
        to_pixels(tmp_path / "bad.jpg", "RGB")


def test_samples_are_what_is_prepared_and_broken_pictures_are_reported(tmp_path):
    def prepare(pixels, image_id):
        return pixels, LabelMap(torch.zeros(0, 0), image_id, (2, 3), (2, 3))

    photos = Photos([PIXELS, tmp_path / "none.png"], "RGB", prepare)
    good, bad = photos[0], photos[1]
    assert good.image is not None
    assert (good.image.shape, good.target.image_id) == ((3, 2, 3), 1)
    assert bad.image is None
    assert bad.broken[0].image_id == 2
    assert "does not exist" in bad.broken[0].reason


def test_hidden_files_of_a_folder_are_left_out(tmp_path):
    for name in ("a.png", ".b.png", "._a.png", ".cache/c.png", "below/d.png"):
        saved(tmp_path / name)
    assert [file.name for file in find([tmp_path])] == ["a.png", "d.png"]

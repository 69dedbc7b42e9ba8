import numpy as np
import pytest
import torch
from PIL import Image
from shared import shared

from cvpods_ext.data import images
from cvpods_ext.errors import DataError

ORIENTATION = 0x0112


def gradient(height=24, width=32):
    """Smooth, so that JPEG keeps it, and different in every corner."""
    y, x = np.mgrid[:height, :width]
    return np.stack((x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 256), axis=2).astype(np.uint8)


def read(path, height=24, width=32, **options):
    return images.read(path, (height, width), 17, **options).permute(1, 2, 0).numpy()


def test_a_photo_equals_what_pillow_reads():
    path = next(iter(sorted(shared("data/datasets/coco/train2017").glob("*.jpg"))))
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(read(path, *expected.shape[:2]), expected)


def test_png_is_exact_and_bgr_is_reversed(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "x.png")
    assert np.array_equal(read(tmp_path / "x.png"), gradient())
    assert np.array_equal(read(tmp_path / "x.png", channels="BGR"), gradient()[:, :, ::-1])


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [("L", "png", 0), ("L", "jpg", 8), ("P", "png", 0), ("RGBA", "png", 0), ("CMYK", "jpg", 8), ("1", "png", 0),
     ("LA", "png", 0), ("RGB", "bmp", 0), ("RGB", "webp", 40), ("RGB", "gif", 0)],
)  # fmt: skip
def test_other_kinds_of_files_become_rgb(tmp_path, mode, suffix, tolerance):
    path = tmp_path / f"x.{suffix}"
    source = Image.fromarray(gradient()).convert(mode)
    source.save(path, quality=95) if suffix in ("jpg", "webp") else source.save(path)
    reference = np.asarray(Image.open(path).convert("RGB")).astype(int)
    found = read(path)
    assert found.dtype == np.uint8
    assert np.abs(found - reference).max() <= tolerance


def test_sixteen_bits_become_eight(tmp_path):
    values = (np.arange(24 * 32, dtype=np.uint32).reshape(24, 32) * 85).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    expected = np.round(values / 257)
    assert np.abs(read(tmp_path / "x.png").astype(int) - expected[:, :, None]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "x.png"
    Image.fromarray(gradient()).save(path, exif=exif)
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }[orientation]
    expected = turn(gradient())
    assert np.array_equal(read(path, *expected.shape[:2]), expected)


def test_a_rotated_file_annotated_as_stored_is_read_as_stored(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(gradient()).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read(tmp_path / "x.png", 24, 32), gradient())


def message(path, height=24, width=32):
    with pytest.raises(DataError) as raised:
        images.read(path, (height, width), 17)
    assert str(path) in str(raised.value)
    assert "image 17" in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_truncated_file_names_itself_and_its_id(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be decoded" in message(path)


def test_missing_empty_and_foreign_files_name_themselves(tmp_path):
    assert "does not exist; `pods_data doctor`" in message(tmp_path / "nothing.jpg")
    (tmp_path / "empty.jpg").touch()
    assert "cannot be decoded" in message(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("<html>404</html>" * 100)
    assert "cannot be decoded" in message(tmp_path / "text.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert "cannot be decoded" in message(tmp_path / "folder.jpg")


def test_another_size_than_the_json_says_is_an_error(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "x.png")
    text = message(tmp_path / "x.png", 24, 33)
    assert "is 32 x 24 pixels, but its annotations are for 33 x 24" in text


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "x.png")
    image = images.read(tmp_path / "x.png", (1, 1), 17)
    assert torch.equal(image, torch.tensor([1, 2, 3], dtype=torch.uint8).reshape(3, 1, 1))

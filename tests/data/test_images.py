import os
import socket
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from damage import damage
from limited import outcomes
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
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "cannot be decoded" in message(tmp_path / "loop.jpg")


def test_another_size_than_the_json_says_is_an_error(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "x.png")
    text = message(tmp_path / "x.png", 24, 33)
    assert "is 32 x 24 pixels, but its annotations are for 33 x 24" in text


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "x.png")
    image = images.read(tmp_path / "x.png", (1, 1), 17)
    assert torch.equal(image, torch.tensor([1, 2, 3], dtype=torch.uint8).reshape(3, 1, 1))


# ---- files that are no photos ----------------------------------------------------------------------------------------

POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n%%EndComments\n(touched) (w) file closefile\nshowpage\n"
)
OTHERS = {
    "PostScript": POSTSCRIPT,
    "PostScript in a DOS wrapper": b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + bytes(22) + POSTSCRIPT,
    "PDF": b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\n" * 10,
    "a page that names a file": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    "MPEG": b"\x00\x00\x01\xb3" + b"\x00" * 100,
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + b"\x00" * 100,
    "FLI": b"\x80\x00\x00\x00\x11\xaf" + b"\x01" * 200,
    "a font": b"\x01fcp" + b"\x00" * 100,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_format_named_jpg_starts_nothing(tmp_path, kind, monkeypatch):
    def started(*arguments, **options):
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr("subprocess.Popen", started)
    (tmp_path / "x.jpg").write_bytes(OTHERS[kind])
    assert "is none of JPEG, PNG, BMP, TIFF, WEBP, GIF, or damaged" in message(tmp_path / "x.jpg")


@pytest.mark.parametrize("make", ["pipe", "socket", "device"])
def test_pipes_devices_and_sockets_are_refused_without_waiting(tmp_path, make):
    path = tmp_path / "x.jpg"
    if make == "pipe":
        os.mkfifo(path)
    elif make == "device":
        path.symlink_to("/dev/zero")
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
    began = time.monotonic()
    assert "cannot be decoded" in message(path)
    assert time.monotonic() - began < 5


def png(width, height, rows=b""):
    """A PNG file with a header of any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_the_size_is_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(png(9000, 9000))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    assert "is 9000 x 9000 pixels, but its annotations are for 32 x 24" in message(tmp_path / "x.png")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (200_000_000, 1)])
def test_more_pixels_than_any_photo_has_are_refused_even_if_the_json_says_so(tmp_path, width, height):
    (tmp_path / "x.png").write_bytes(png(width, height))
    (outcome,) = outcomes_of_images([(tmp_path / "x.png", height, width)])
    assert outcome.kind == "refused"
    assert "cannot be decoded" in outcome.message
    assert outcome.peak_bytes < 1 << 27


def outcomes_of_images(images):
    return outcomes("image_reading:read_named", [f"{path}|{height}|{width}" for path, height, width in images])


def test_a_large_image_of_one_colour_is_read_within_bounds(tmp_path):
    Image.new("RGB", (9000, 9000)).save(tmp_path / "x.png")
    (outcome,) = outcomes_of_images([(tmp_path / "x.png", 9000, 9000)])
    assert outcome.kind == "read"
    assert outcome.peak_bytes < 11 * 9000 * 9000  # 4 bytes a pixel in Pillow, 3 in bytes, 3 in an array


@pytest.mark.parametrize(
    ("values", "words"),
    [(np.full((24, 32), 70_000, np.int32), "more than 16 bits"), (np.full((24, 32), -1, np.int32), "more than 16 bits"),
     (np.full((24, 32), 0.5, np.float32), "fractions")],
)  # fmt: skip
def test_numbers_without_a_known_range_are_refused(tmp_path, values, words):
    Image.fromarray(values).save(tmp_path / "x.tiff")
    assert words in message(tmp_path / "x.tiff")


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_either_byte_order_become_eight(tmp_path, order):
    values = np.arange(24 * 32).reshape(24, 32) * 85
    Image.fromarray(values.astype(order)).save(tmp_path / "x.tiff")
    assert np.array_equal(read(tmp_path / "x.tiff")[:, :, 0], values // 257)


def test_sixteen_bits_of_three_channels_become_eight(tmp_path):
    values = np.arange(24 * 32 * 3).reshape(24, 32, 3) * 28
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = png(32, 24, rows)
    header = struct.pack(">IIBBBBB", 32, 24, 16, 2, 0, 0, 0)
    start = data.index(b"IHDR") + 4
    data = data[:start] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[start + 17 :]
    (tmp_path / "x.png").write_bytes(data)
    assert np.abs(read(tmp_path / "x.png").astype(int) - values // 257).max() <= 1


SEED_FORMATS = ("jpg", "png", "webp", "bmp", "gif", "tiff")


def damaged_images(folder, count):
    """Files of every format with random damage: bytes changed, cut out, doubled, or the end cut off."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    sources = []
    for suffix in SEED_FORMATS:
        path = folder / f"sound.{suffix}"
        Image.fromarray(noise).save(path, **({} if suffix in ("bmp", "gif") else {"exif": exif}))
        sources.append((suffix, path.read_bytes()))
    for number in range(count):
        suffix, data = sources[number % len(sources)]
        path = folder / f"{number}.{suffix}"
        path.write_bytes(damage(data, random))
        yield path


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_images_are_read_or_refused(tmp_path, count):
    found = outcomes_of_images((path, 24, 32) for path in damaged_images(tmp_path, count))
    assert len(found) == count
    for outcome in found:
        assert outcome.kind in ("read", "refused"), outcome
        assert outcome.peak_bytes < 2 << 30, outcome
        assert outcome.seconds < 20, outcome
    assert sum(outcome.kind == "refused" for outcome in found) > count // 4

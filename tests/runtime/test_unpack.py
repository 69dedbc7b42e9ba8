"""Archives of strangers: what they may not do, what is kept, and how an interrupted unpacking goes on."""

import os
import shutil
import stat
import struct
import zipfile
from collections import namedtuple

import pytest
from small_disk import small_disk

from cvpods_ext.errors import DataError, StorageError
from cvpods_ext.runtime import download
from cvpods_ext.runtime.unpack import Unpacked, unpack_zip


def archive(path, members, mode=None):
    """A zip file of (name, content) pairs; `mode` is the kind of the first."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, (name, content) in enumerate(members):
            info = zipfile.ZipInfo("x")
            info.filename = name  # past what ZipInfo makes of it
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode and not number:
                info.external_attr = mode << 16
            opened.writestr(info, content)
    return path


GOOD = [("val/", b""), ("val/1.jpg", b"one"), ("val/deep/2.jpg", b"two"), ("labels.json", b"{}")]


def test_everything_is_unpacked_below_the_folder(tmp_path):
    found = unpack_zip(archive(tmp_path / "a.zip", GOOD), tmp_path / "out")
    assert found == Unpacked(files=3, written=3, differing=())
    assert (tmp_path / "out/val/deep/2.jpg").read_bytes() == b"two"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        "1.jpg",
        "2.jpg",
        "deep",
        "labels.json",
        "val",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../out.txt",
        "a/../../out.txt",
        "/etc/out.txt",
        "a\\..\\out.txt",
        "C:/out.txt",
        "a//b",
        "./a",
        "a\nb",
        "",
    ],
)
def test_paths_that_lead_elsewhere_are_refused_before_anything_is_written(tmp_path, name):
    given = archive(tmp_path / "a.zip", [("fine.txt", b"x"), (name, b"y")])
    with pytest.raises(DataError, match=r"is refused, nothing was unpacked.*is no path below a folder"):
        unpack_zip(given, tmp_path / "inside/folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path, kind):
    given = archive(tmp_path / "a.zip", [("link", b"/etc"), ("link/passwd", b"x")], kind | 0o777)
    with pytest.raises(DataError, match="is a link or device"):
        unpack_zip(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="comes twice"):
        unpack_zip(archive(tmp_path / "a.zip", [("a", b"x"), ("a", b"y")]), tmp_path / "out")


def test_an_encrypted_file_is_refused(tmp_path):
    given = archive(tmp_path / "a.zip", [("a", b"x")])
    content = bytearray(given.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    given.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        unpack_zip(given, tmp_path / "out")


def test_an_archive_that_swells_is_refused_by_what_it_states(tmp_path):
    given = archive(tmp_path / "a.zip", [("zeros", bytes(120 << 20))])
    with pytest.raises(DataError, match=r"1 file of 125\.8 MB in an archive of"):
        unpack_zip(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_that_states_less_than_it_holds_writes_no_more_than_it_states(tmp_path):
    given = archive(tmp_path / "a.zip", [("zeros", bytes(1 << 20))])
    content = bytearray(given.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 1000)
    given.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        unpack_zip(given, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("place", ["first", "content", "half"])
def test_a_damaged_archive_is_told_and_half_a_file_is_not_left(tmp_path, place):
    given = archive(tmp_path / "a.zip", [("a", os.urandom(5000)), ("b", os.urandom(5000))])
    content = bytearray(given.read_bytes())
    if place == "half":
        content = content[: len(content) // 2]
    else:
        content[0 if place == "first" else 2000] ^= 0xFF
    given.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged.*Remove it and run the command again"):
        unpack_zip(given, tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.name not in ("a.zip", "out")]


def test_an_interrupted_unpacking_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    given = archive(tmp_path / "a.zip", GOOD)
    real, calls = os.replace, []

    def stop_at_the_second(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*paths)

    monkeypatch.setattr(os, "replace", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        unpack_zip(given, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["1.jpg"]
    assert unpack_zip(given, tmp_path / "out") == Unpacked(files=3, written=2, differing=())


def test_files_that_are_there_stay_as_they_are_and_are_named_if_they_differ(tmp_path):
    (tmp_path / "out/val").mkdir(parents=True)
    (tmp_path / "out/val/1.jpg").write_bytes(b"changed by hand")
    found = unpack_zip(archive(tmp_path / "a.zip", GOOD), tmp_path / "out")
    assert found == Unpacked(files=3, written=2, differing=("val/1.jpg",))
    assert (tmp_path / "out/val/1.jpg").read_bytes() == b"changed by hand"


def test_a_folder_where_a_file_should_go_is_named(tmp_path):
    (tmp_path / "out/labels.json").mkdir(parents=True)
    with pytest.raises(DataError, match=r"labels\.json is a folder, and the archive has a file of that name"):
        unpack_zip(archive(tmp_path / "a.zip", GOOD), tmp_path / "out")


def test_no_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    given = archive(tmp_path / "a.zip", GOOD)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(download.MARGIN + 7))
    with pytest.raises(StorageError, match=r"the content of a\.zip needs 8 bytes"):
        unpack_zip(given, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_fills_up_leaves_whole_files_only(tmp_path, monkeypatch):
    with small_disk(tmp_path / "small", "512k") as mounted:
        if not mounted:
            pytest.skip("mounting is not allowed here")
        monkeypatch.setattr(download, "MARGIN", -(1 << 30))
        given = archive(tmp_path / "a.zip", [(str(number), os.urandom(200_000)) for number in range(4)])
        with pytest.raises(StorageError, match="goes on from there"):
            unpack_zip(given, tmp_path / "small/out")
        assert [path.stat().st_size for path in (tmp_path / "small/out").iterdir()] == [200_000, 200_000]

"""A place that cannot be written to is refused before the work, with the flag, the value and the reason."""

import os

import pytest

from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime.files import what_is_at
from cvpods_ext.runtime.outputs import check_output_file, check_output_folder


@pytest.fixture
def places(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    return tmp_path


@pytest.mark.parametrize("path", ["new.json", "file", "folder/deeper/still/new.json"])
def test_a_new_file_and_one_that_is_replaced_are_fine(places, path):
    check_output_file("--out", places / path)
    check_output_file("--out", None)
    assert sorted(os.listdir(places / "folder")) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("folder", "folder is a folder, not a file"),
        ("pipe", "pipe is a pipe, not a file"),
        ("circle", "is a link that leads in a circle, not a file"),
        ("nowhere", "is a link to .*absent, which does not exist, not a file"),
        ("file/new.json", "file is a file, not a folder"),
        ("file/deeper/new.json", "file is a file, not a folder"),
        ("circle/new.json", "circle is a link that leads in a circle, not a folder"),
        ("pipe/new.json", "pipe is a pipe, not a folder"),
    ],
)
def test_other_places_are_refused_by_what_is_there(places, path, words):
    with pytest.raises(ConfigError, match=f"--out .*{words}"):
        check_output_file("--out", places / path)


def test_devices_are_no_files():
    with pytest.raises(ConfigError, match="/dev/null is a device or socket"):
        check_output_file("--out", "/dev/null")


def test_an_ending_is_required_where_it_chooses_the_format(places):
    check_output_file("--out", places / "a.npy", (".json", ".npy"))
    with pytest.raises(ConfigError, match=r"a\.txt must end in \.json or \.npy"):
        check_output_file("--out", places / "a.txt", (".json", ".npy"))


def test_a_file_that_the_command_reads_is_not_replaced(places, monkeypatch):
    (places / "again").symlink_to(places / "file")
    monkeypatch.chdir(places)
    for path in ("file", places / "file", places / "folder" / ".." / "file", "again"):
        with pytest.raises(ConfigError, match="is a file that this command uses itself"):
            check_output_file("--out", path, reads=(None, "file"))
    check_output_file("--out", "other", reads=("file",))


def test_a_folder_that_may_not_be_written_to_is_refused(places, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(places / "folder"))  # root may write anywhere
    with pytest.raises(ConfigError, match="folder may not be written to"):
        check_output_file("--out", places / "folder" / "a.json")
    with pytest.raises(ConfigError, match="folder may not be written to"):
        check_output_folder("--out", places / "folder")


def test_folders_are_new_or_folders(places):
    for path in ("folder", "folder/new", "new/deeper"):
        check_output_folder("--out", places / path)
    check_output_folder("--out", None)
    for path in ("file", "file/deeper", "pipe", "circle"):
        with pytest.raises(ConfigError, match="not a folder to write into"):
            check_output_folder("--out", places / path)


def test_what_lies_at_a_path_is_told_without_opening_it(places):
    assert what_is_at(places / "absent") == "does not exist"
    assert what_is_at(places / "folder") == "is a folder"
    assert what_is_at(places / "pipe") == "is a pipe"
    assert what_is_at(places / "file" / "below") == "cannot be looked at (Not a directory)"

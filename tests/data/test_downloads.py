"""Data sets by name from a server on loopback: what is fetched, what is kept, and how it goes on after a stop."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from file_server import FileServer, drop_after
from tiny_dataset import write_dataset

from cvpods_ext.cli import data as command
from cvpods_ext.data import catalog, downloads
from cvpods_ext.data.catalog import Download, KnownDataset
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.runtime import download, http


def zipped(*files, **contents):
    """The bytes of an archive of files on disk and of contents by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, path in files:
            archive.write(path, name)
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    for name in (*http.OFFLINE_VARIABLES, "PODS_DATASETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(downloads, "SETS", {**downloads.SETS, "tiny": ("tiny_train",)})
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a data set called tiny: an archive of images, one of annotations, and optional class counts."""
    made = tmp_path / "made"
    made.mkdir()
    write_dataset(made)
    images = zipped(*((f"photos/{path.name}", path) for path in sorted(made.glob("*.png"))))
    files = {"/photos.zip": images, "/train.json.zip": zipped(("train.json", made / "train.json"))}
    with FileServer(files) as running:
        known = KnownDataset(
            annotations="tiny/train.json",
            images="tiny/photos",
            schema="coco",
            num_classes=2,
            table="",
            downloads=(
                Download(url=f"{running.url}/train.json.zip", unpacks_to="tiny/train.json"),
                Download(
                    url=f"{running.url}/photos.zip",
                    unpacks_to="tiny/photos",
                    length=len(images),
                    sha256=hashlib.sha256(images).hexdigest(),
                ),
                Download(url=f"{running.url}/shots.json", unpacks_to="tiny/shots.json"),
            ),
            num_shots="tiny/shots.json",
        )
        monkeypatch.setitem(catalog.KNOWN, "tiny_train", known)
        yield running


@pytest.fixture
def run(monkeypatch, capsys):
    """`pods_data download ...`; returns (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pods_data", "download", *map(str, arguments)])
        status = 0
        try:
            command.main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_data_set_is_fetched_unpacked_and_examined(server, run, tmp_path):
    status, out, err = run("tiny", "--to", "sets", "--yes")
    assert status == 0, out + err
    assert "train.json.zip: 1 file in" in out
    assert "photos.zip: 6 files in" in out
    assert "shots.json is left out, nothing needs it" in out
    assert "6 images, 12 annotations, 2 categories" in out
    assert "nothing is missing" in out
    assert f"export PODS_DATASETS={tmp_path / 'sets'}" in out
    unpacked = [path for path in names(tmp_path / "sets") if ".cache" not in path]
    assert unpacked == [*(f"tiny/photos/{number}.png" for number in range(1, 7)), "tiny/train.json"]
    asked = len(server.gets("/photos.zip"))
    status, out, _ = run("tiny", "--to", "sets", "--yes")
    assert (status, out.count("  there")) == (0, 2)
    assert len(server.gets("/photos.zip")) == asked


def test_a_dry_run_shows_sizes_and_fetches_nothing(server, run, tmp_path):
    status, out, _ = run("tiny", "--to", "sets", "--dry-run")
    assert status == 0
    packed = len(server.files["/train.json.zip"])
    assert f"{packed} bytes" in out or f"{packed / 1000:.1f} kB" in out  # asked of the server
    assert "missing" in out
    assert "are free" in out
    assert not (tmp_path / "sets").exists()
    assert not server.gets("/photos.zip")


def test_nobody_to_ask_means_nothing_is_fetched(server, run, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    status, _, err = run("tiny", "--to", "sets")
    assert (status, "add --yes" in err) == (2, True)
    assert not server.gets("/photos.zip")


def test_archives_are_kept_where_that_is_asked_for(server, run, tmp_path):
    assert run("tiny", "--to", "sets", "--yes", "--keep-archives")[0] == 0
    assert {path.name for path in (tmp_path / "sets/.downloads/unpacked").iterdir()} == {"photos.zip", "train.json.zip"}
    assert run("tiny", "--to", "sets", "--yes")[1].count("  there") == 2


def test_the_data_root_of_the_environment_is_where_data_goes(server, run, tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path / "root"))
    assert run("tiny_train", "--yes")[0] == 0
    assert (tmp_path / "root/tiny/train.json").is_file()


def test_a_broken_connection_and_a_stop_are_gone_on_from(server, run, tmp_path):
    server.faults["/photos.zip"] = [drop_after(3000)] + [drop_after(0)] * (download._TRIES - 1)
    status, _, err = run("tiny", "--to", "sets", "--yes")
    assert (status, "stopped at 3,000 of" in err) == (2, True)
    assert "3.0 kB have arrived" in run("tiny", "--to", "sets", "--dry-run")[1]
    assert run("tiny", "--to", "sets", "--yes")[0] == 0
    assert server.gets("/photos.zip")[-1]["range"] == "bytes=3000-"


def test_another_checksum_ends_with_both_and_an_own_choice_takes_it(server, run, tmp_path):
    server.files["/photos.zip"] = server.files["/photos.zip"].replace(b"photos/1.png", b"photos/7.png")
    status, _, err = run("tiny", "--to", "sets", "--yes")
    assert (status, "published is" in err, "nothing was kept" in err) == (2, True, True)
    assert not (tmp_path / "sets/tiny/photos").exists()
    run("tiny", "--to", "sets", "--yes", "--no-checksums")
    assert (tmp_path / "sets/tiny/photos/7.png").is_file()


def test_files_of_ones_own_stay_and_the_archive_with_them(server, run, tmp_path):
    (tmp_path / "sets/tiny").mkdir(parents=True)
    (tmp_path / "sets/tiny/photos").symlink_to(tmp_path / "elsewhere")  # the images are on another disk
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").write_bytes(b"mine")
    (tmp_path / "sets/.downloads").mkdir()
    (tmp_path / "sets/.downloads/photos.zip.unpacking").touch()  # an unpacking was interrupted
    status, out, _ = run("tiny", "--to", "sets", "--yes")
    assert status == 0 or "problem" in out
    assert "1 file was there with another size" in out
    assert (tmp_path / "elsewhere/1.png").read_bytes() == b"mine"
    assert (tmp_path / "elsewhere/2.png").is_file()
    assert (tmp_path / "sets/.downloads/photos.zip").is_file()


def test_a_process_that_was_killed_while_it_unpacked_is_gone_on_from(server, run, tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cvpods_ext.data.catalog import Download\n"
        "from cvpods_ext.data.downloads import Item\n"
        "real, calls = os.replace, []\n"
        "def killed(source, target):\n"
        "    calls.append(target)\n"
        "    if 'png' in str(target) and len(calls) > 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(source, target)\n"
        "os.replace = killed\n"
        "item = Item(Download(url=sys.argv[1], unpacks_to='tiny/photos'), ('tiny/photos',))\n"
        "item.get(Path(sys.argv[2]))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-c", code, f"{server.url}/photos.zip", str(tmp_path / "sets")]
    assert subprocess.run(arguments, env=env, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "sets/tiny/photos").exists()
    asked = len(server.gets("/photos.zip"))
    status, out, _ = run("tiny", "--to", "sets", "--yes")
    assert status == 0, out
    assert len(server.gets("/photos.zip")) == asked  # the archive was there
    assert "nothing is missing" in out
    assert not [name for name in names(tmp_path / "sets") if name.endswith("unpacking") or ".downloads" in name]


def test_two_at_once_fetch_and_unpack_once(server, tmp_path):
    server.seconds_per_chunk = 0.2
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from cvpods_ext.data.catalog import Download\nfrom cvpods_ext.data.downloads import Item\n"
        "item = Item(Download(url=sys.argv[1], unpacks_to='tiny/photos'), ('tiny/photos',))\n"
        "print(item.get(Path(sys.argv[2])))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-c", code, f"{server.url}/photos.zip", str(tmp_path / "sets")]
    started = [subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = sorted(process.communicate(timeout=60)[0].strip() for process in started)
    assert told == ["None", "Unpacked(files=6, written=6, differing=())"]
    assert len(server.gets("/photos.zip")) == 1


def test_an_archive_with_other_content_is_refused(server, tmp_path):
    server.files["/photos.zip"] = zipped(other=b"x")
    item = downloads.Item(Download(url=f"{server.url}/photos.zip", unpacks_to="tiny/photos"), ("tiny/photos",))
    with pytest.raises(DataError, match="it is not the archive that was expected"):
        item.get(tmp_path / "sets")


@pytest.mark.parametrize("name", ["imagenet", "imagenet_val", "objects365", "objects365_val"])
def test_what_asks_for_a_login_is_refused_with_instructions(run, name):
    status, _, err = run(name, "--to", "sets", "--yes")
    assert (status, "registered users" in err, "in a browser" in err) == (2, True, True)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'lvis_v1'"):
        downloads.items("lvis_v11")


def test_the_published_sets_are_complete_and_go_where_the_catalog_looks():
    for name, sets in downloads.SETS.items():
        if name == "tiny":
            continue
        found = downloads.items(name)
        assert len({item.download.url for item in found}) == len(found)
        gives = {path for item in found for path in item.unpacks_to}
        for each in sets:
            if each in catalog.KNOWN:
                known = catalog.KNOWN[each]
                assert {known.annotations} <= gives
                assert any(path == known.images or path.startswith(f"{known.images}/") for path in gives)
    annotations = next(item for item in downloads.items("coco_2017") if "annotations" in item.name)
    assert annotations.download.folder == "coco"
    assert sorted(annotations.unpacks_to) == [
        f"coco/annotations/instances_{split}2017.json" for split in ("train", "val")
    ]
    assert [item.download.folder for item in downloads.items("ade20k")] == ["."]
    assert {item.name for item in downloads.items("coco_2017_val")} == {"val2017.zip", "annotations_trainval2017.zip"}


def test_the_space_for_lvis_is_that_of_everything_unpacked_and_the_archive_at_hand(tmp_path):
    needed = downloads.bytes_needed(downloads.items("lvis_v1"), tmp_path, keep_archives=False)
    assert 39e9 < needed < 44e9
    assert downloads.bytes_needed(downloads.items("lvis_v1"), tmp_path, keep_archives=True) > needed


def test_offline_ends_at_once_with_where_to_put_the_file(server, run, monkeypatch, tmp_path):
    monkeypatch.setenv("PODS_OFFLINE", "1")
    started = time.monotonic()
    status, _, err = run("tiny", "--to", "sets", "--yes")
    assert (status, "PODS_OFFLINE=1 forbids" in err) == (2, True)
    assert f"put it at {tmp_path / 'sets/.downloads/train.json.zip'}" in err
    assert time.monotonic() - started < 5
    assert server.seen == []

"""The downloader against a server on loopback that breaks in every way that servers do."""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
from file_server import FileServer, drop_after, redirect, status, wrong_range
from small_disk import small_disk

from cvpods_ext.errors import DataError, DownloadError, StorageError
from cvpods_ext.runtime import download, http
from cvpods_ext.runtime.download import Source, as_text, fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB, every 256 bytes alike
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def online(monkeypatch):
    for name in http.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_FIRST_WAIT", 0.01)


@pytest.fixture
def server():
    with FileServer({"/w.pth": CONTENT}) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache/w.pth"


def source(server, **facts):
    return Source(f"{server.url}/w.pth", **facts)


def only(target):
    """Whether nothing lies beside the file: no part, no notes, no lock."""
    return [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_arrives_whole_and_alone_and_is_fetched_once(server, target, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("cvpods_ext.runtime.download"), "disabled", True)  # then it is printed
    facts = source(server, size=len(CONTENT), sha256=SHA256.upper())
    assert fetch(facts, target).read_bytes() == CONTENT
    assert only(target)
    told = capsys.readouterr().err
    assert f"fetching w.pth (1.0 MB) from {server.url}/w.pth to {target}" in told
    fetch(facts, target)
    assert len(server.gets("/w.pth")) == 1


def test_a_connection_that_breaks_is_opened_again_at_the_byte_where_it_broke(server, target):
    server.faults["/w.pth"] = [drop_after(100_000), drop_after(1), drop_after(300_000)]
    assert fetch(source(server), target).read_bytes() == CONTENT
    ranges = [headers.get("range") for headers in server.gets("/w.pth")]
    assert ranges == [None, "bytes=100000-", "bytes=100001-", "bytes=400001-"]
    assert server.gets("/w.pth")[1]["if-range"] == server.etag("/w.pth")


def test_a_connection_that_brings_nothing_any_more_ends_in_an_error_and_keeps_what_came(server, target):
    server.faults["/w.pth"] = [drop_after(100_000)] + [drop_after(0)] * 9
    with pytest.raises(DownloadError, match=r"stopped at 100,000 of 1,048,576 bytes.*the next try goes on there"):
        fetch(source(server), target)
    assert len(server.gets("/w.pth")) == download._TRIES
    server.faults.clear()
    fetch(source(server), target)
    assert target.read_bytes() == CONTENT
    assert server.gets("/w.pth")[-1]["range"] == "bytes=100000-"
    assert only(target)


_KILLED = """
import sys
from pathlib import Path
from cvpods_ext.runtime.download import Source, fetch
fetch(Source(sys.argv[1], sha256=sys.argv[3]), Path(sys.argv[2]))
"""


def child(server, target, sha256=""):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _KILLED, f"{server.url}/w.pth", str(target), sha256]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def wait_for_part(target, size):
    part = target.with_name("w.pth.part")
    deadline = time.monotonic() + 20
    while not (part.is_file() and part.stat().st_size >= size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return part


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_process_that_was_stopped_is_gone_on_from(server, target, sent):
    server.seconds_per_chunk = 0.1
    process = child(server, target)
    part = wait_for_part(target, 200_000)
    process.send_signal(sent)
    process.communicate()
    kept = part.stat().st_size
    assert 200_000 <= kept < len(CONTENT)
    assert not target.exists()
    server.seconds_per_chunk = 0.0
    assert fetch(source(server, sha256=SHA256), target).read_bytes() == CONTENT
    assert server.gets("/w.pth")[-1]["range"] == f"bytes={kept}-"
    assert only(target)


def test_two_processes_at_once_fetch_once(server, target):
    server.seconds_per_chunk = 0.03
    processes = [child(server, target) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    for process in processes:
        process.stderr.close()
    assert target.read_bytes() == CONTENT
    assert len(server.gets("/w.pth")) == 1
    assert only(target)


def leave_part(server, target, count=100_000):
    server.faults["/w.pth"] = [drop_after(count)] + [drop_after(0)] * (download._TRIES - 1)
    with pytest.raises(DownloadError):
        fetch(source(server), target)
    assert target.with_name("w.pth.part").stat().st_size == count


@pytest.mark.parametrize("attentive", [True, False])
def test_a_part_of_an_older_version_is_given_up(server, target, attentive):
    leave_part(server, target)
    server.files["/w.pth"] = CONTENT[::-1]
    if not attentive:
        server.deaf_to_if_range.add("/w.pth")
    assert fetch(source(server), target).read_bytes() == CONTENT[::-1]


def test_a_part_that_is_longer_than_the_new_version_is_given_up(server, target):
    leave_part(server, target)
    server.files["/w.pth"] = b"short"
    server.deaf_to_if_range.add("/w.pth")
    assert fetch(source(server), target).read_bytes() == b"short"


def test_a_part_that_is_already_the_whole_is_not_fetched_again(server, target):
    leave_part(server, target, len(CONTENT) - 1)
    with open(target.with_name("w.pth.part"), "ab") as part:
        part.write(CONTENT[-1:])
    assert fetch(source(server, sha256=SHA256), target).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_file_again(server, target):
    leave_part(server, target)
    server.without_ranges.add("/w.pth")
    assert fetch(source(server), target).read_bytes() == CONTENT


def test_without_etag_and_checksum_nobody_can_tell_whether_a_part_fits_so_it_is_not_used(server, target):
    server.etags["/w.pth"] = ""
    leave_part(server, target)
    server.files["/w.pth"] = CONTENT[::-1]
    assert fetch(source(server), target).read_bytes() == CONTENT[::-1]
    assert "range" not in server.gets("/w.pth")[-1]


def test_without_etag_a_checksum_decides_about_a_part(server, target):
    server.etags["/w.pth"] = ""
    leave_part(server, target)
    target.with_name("w.pth.part").write_bytes(b"x" * 100_000)
    assert fetch(source(server, sha256=SHA256), target).read_bytes() == CONTENT
    assert [headers.get("range") for headers in server.gets("/w.pth")[-2:]] == ["bytes=100000-", None]


def test_a_part_of_another_address_is_not_used(server, target):
    leave_part(server, target)
    server.files["/other.pth"] = CONTENT[::-1]
    assert fetch(Source(f"{server.url}/other.pth"), target).read_bytes() == CONTENT[::-1]


def test_another_checksum_than_published_names_both_and_leaves_nothing(server, target):
    with pytest.raises(DownloadError) as caught:
        fetch(source(server, sha256="ab" * 32), target)
    assert SHA256 in str(caught.value)
    assert "published is abab" in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_another_size_than_published_is_told_before_the_first_byte(server, target):
    with pytest.raises(DownloadError, match=r"has 1,048,576 bytes, published are 1,000,000"):
        fetch(source(server, size=1_000_000), target)
    assert list(target.parent.iterdir()) == []


def test_a_length_that_is_not_kept_is_a_broken_connection(server, target):
    def short(handler, path):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"only this")
        handler.close_connection = True

    server.faults["/w.pth"] = [short] * download._TRIES
    with pytest.raises(DownloadError, match="stopped at 9 of 100 bytes"):
        fetch(source(server), target)


def test_a_body_without_length_is_taken_to_its_end_and_no_further_than_published(server, target):
    def endless(handler, path):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)
        handler.close_connection = True

    server.faults["/w.pth"] = [endless, endless]
    assert fetch(source(server, sha256=SHA256), target).read_bytes() == CONTENT
    target.unlink()
    with pytest.raises(DownloadError, match="sends more than the 1,000 bytes"):
        fetch(source(server, size=1000), target)
    assert list(target.parent.iterdir()) == []


def test_what_the_caller_cannot_use_is_not_kept(server, target):
    def verify(path):
        raise DataError(f"{path.stat().st_size} bytes of nothing")

    with pytest.raises(DownloadError, match="of no use, nothing was kept: 1048576 bytes of nothing"):
        fetch(source(server), target, verify)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_that_asks_for_patience_is_asked_again(server, target, code):
    server.faults["/w.pth"] = [status(code, Retry_After="0"), status(code)]
    assert fetch(source(server), target).read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "words"), [(404, "404 .Not Found"), (403, "403 .Forbidden.*login"), (410, "410")])
def test_a_refusal_is_final_and_says_where_to_put_the_file_by_hand(server, target, code, words):
    server.faults["/w.pth"] = [status(code)] * 3
    with pytest.raises(DownloadError, match=rf"{words}[\s\S]*put it at {target}"):
        fetch(source(server), target)
    assert len(server.gets("/w.pth")) == 1


def test_a_web_page_is_no_file(server, target):
    server.types["/w.pth"] = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="web page"):
        fetch(source(server), target)
    assert list(target.parent.iterdir()) == []


def test_a_part_from_elsewhere_in_the_file_is_refused(server, target):
    server.faults["/w.pth"] = [drop_after(1000), wrong_range]
    with pytest.raises(DownloadError, match="another part than the one from byte 1,000 on"):
        fetch(source(server), target)


def test_redirects_are_followed_relative_or_to_another_host_each_time_anew(server, target):
    server.files["/moved/w.pth"] = CONTENT
    to_the_other = redirect(f"{server.other_host}/moved/w.pth?signature=secret")
    server.files["/moved/w.pth?signature=secret"] = CONTENT
    server.faults["/moved/w.pth?signature=secret"] = [drop_after(5000)]
    server.faults["/start"] = [redirect("/w.pth", 301), *[to_the_other] * 2]
    assert fetch(Source(f"{server.url}/start"), target).read_bytes() == CONTENT
    target.unlink()
    assert fetch(Source(f"{server.url}/start"), target).read_bytes() == CONTENT
    assert len(server.gets("/start")) == 3


def test_no_space_is_told_before_the_first_byte(server, target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, download.MARGIN + len(CONTENT) - 1))
    with pytest.raises(StorageError, match=r"w\.pth needs 1\.0 MB .* are free"):
        fetch(source(server), target)
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, download.MARGIN + len(CONTENT)))
    fetch(source(server), target)


def test_a_disk_that_fills_up_keeps_the_part_and_the_next_run_goes_on(server, tmp_path, monkeypatch):
    with small_disk(tmp_path / "small", "512k") as mounted:
        if not mounted:
            pytest.skip("mounting is not allowed here")
        monkeypatch.setattr(download, "MARGIN", -(1 << 30))  # as where another process takes the space meanwhile
        target = tmp_path / "small/w.pth"
        with pytest.raises(StorageError, match=r"No space left[\s\S]*goes on from there"):
            fetch(source(server), target)
        kept = target.with_name("w.pth.part").stat().st_size
        assert 0 < kept < len(CONTENT)
        elsewhere = tmp_path / "large"
        elsewhere.mkdir()
        for path in target.parent.iterdir():
            shutil.copy(path, elsewhere)
    assert fetch(source(server), elsewhere / "w.pth").read_bytes() == CONTENT
    assert server.gets("/w.pth")[-1]["range"] == f"bytes={kept}-"


@pytest.mark.parametrize("variable", http.OFFLINE_VARIABLES)
def test_offline_is_told_at_once_with_address_size_and_place(server, target, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadError) as caught:
        fetch(source(server, size=len(CONTENT)), target)
    for words in (f"{server.url}/w.pth (1.0 MB)", f"{variable}=1 forbids", f"put it at {target}"):
        assert words in str(caught.value)
    assert server.seen == []
    target.parent.mkdir()
    target.write_bytes(b"by hand")
    assert fetch(source(server), target).read_bytes() == b"by hand"


def test_a_closed_port_and_an_unknown_name_are_told_at_once(target):
    with FileServer() as gone:
        url = gone.url
    for address in (f"{url}/w.pth", "https://no-such-host.invalid/w.pth"):
        started = time.monotonic()
        with pytest.raises(DownloadError, match=r"is not on this machine, and there is no connection to"):
            fetch(Source(address), target)
        assert time.monotonic() - started < 10


def test_a_server_that_falls_silent_is_given_up_after_the_time_limit(server, target, monkeypatch):
    silence = threading.Event()
    server.faults["/w.pth"] = [lambda handler, path: silence.wait(5)] * 9
    monkeypatch.setattr(download, "_TRIES", 2)
    monkeypatch.setattr(http.get.__wrapped__, "__defaults__", (*http.get.__wrapped__.__defaults__[:-1], 0.2))
    with pytest.raises(DownloadError, match=r"connection to 127\.0\.0\.1 broke"):
        fetch(source(server), target)
    silence.set()


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "size not stated"), (12, "12 bytes"), (350_264_821, "350.3 MB"), (19_336_861_798, "19.3 GB")],
)
def test_sizes_are_told_as_people_say_them(size, text):
    assert as_text(size) == text

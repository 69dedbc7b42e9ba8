"""Weights by name against an endpoint of Hugging Face on loopback, with the real huggingface_hub."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from file_server import COMMIT, FileServer, HubServer, drop_after, status
from huggingface_hub import try_to_load_from_cache

from cvpods_ext.config import published_weights
from cvpods_ext.config.published_weights import PublishedWeights
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import addresses, locate, obtain, read
from cvpods_ext.runtime import download

REPO, PATH = "owner/repo", "det/w.pth"
INIT = f"hf://{REPO}/{PATH}"
CACHES = ("PODS_WEIGHTS", "FVCORE_CACHE", "CVPODS_CACHE", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HUB_CACHE", "HF_TOKEN")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in (*CACHES, "PODS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(download, "_FIRST_WAIT", 0.01)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("content") / "w.pth"
    torch.save({"model": {"w": torch.arange(100_000, dtype=torch.float32)}}, path)
    return path.read_bytes()


@pytest.fixture
def hub(monkeypatch, content):
    with HubServer() as server:
        server.digest = server.put(REPO, PATH, content)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def cdn(hub):
    return f"/cdn/{hub.digest}"


@pytest.mark.parametrize("init", [INIT, f"https://huggingface.co/{REPO}/resolve/main/{PATH}"])
def test_a_file_of_the_hub_lands_where_huggingface_hub_looks_for_it(hub, tmp_path, init):
    found = obtain(init, tmp_path)
    assert read(found).state["w"][-1] == 99_999
    theirs = try_to_load_from_cache(REPO, PATH, cache_dir=tmp_path / "hf/hub", revision="main")
    assert os.path.samefile(theirs, found)
    assert f"snapshots/{COMMIT}/{PATH}" in str(found)
    assert found.resolve() == tmp_path / "hf/hub/models--owner--repo/blobs" / hub.digest
    asked = len(hub.seen)
    assert obtain(init, tmp_path) == found == locate(init, tmp_path)
    assert len(hub.seen) == asked
    assert len(hub.gets(cdn(hub))) == 1


def test_a_file_that_another_program_put_into_the_cache_is_not_fetched(hub, tmp_path):
    from huggingface_hub import hf_hub_download

    theirs = hf_hub_download(REPO, PATH, cache_dir=tmp_path / "hf/hub", endpoint=hub.url)
    asked = len(hub.seen)
    assert os.path.samefile(obtain(INIT, tmp_path), theirs)
    assert len(hub.seen) == asked


def test_a_file_that_the_user_put_somewhere_comes_first(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_WEIGHTS", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/w.pth").write_bytes(b"mine")
    assert obtain(INIT, tmp_path) == tmp_path / "own/w.pth"
    assert hub.seen == []


def test_a_broken_download_of_the_hub_goes_on_where_it_broke(hub, tmp_path, content):
    hub.faults[cdn(hub)] = [drop_after(100_000)]
    assert obtain(INIT, tmp_path).read_bytes() == content
    assert hub.gets(cdn(hub))[1]["range"] == "bytes=100000-"


def test_a_killed_download_of_the_hub_goes_on_in_the_next_process(hub, tmp_path, content):
    hub.seconds_per_chunk = 0.15
    code = f"from cvpods_ext.modeling.weights import obtain\nobtain({INIT!r}, '.')"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    part = tmp_path / "hf/hub/models--owner--repo/blobs" / f"{hub.digest}.part"
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 65_536):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    hub.seconds_per_chunk = 0.0
    assert obtain(INIT, tmp_path).read_bytes() == content
    assert hub.gets(cdn(hub))[-1]["range"] == f"bytes={kept}-"
    assert [path.name for path in part.parent.iterdir()] == [hub.digest]


def test_content_that_is_not_what_the_hub_states_is_refused_and_not_kept(hub, tmp_path, content):
    hub.files[cdn(hub)] = content[:-1] + b"x"
    with pytest.raises(WeightsError, match=rf"published is {hub.digest}"):
        obtain(INIT, tmp_path)
    assert list((tmp_path / "hf/hub/models--owner--repo/blobs").iterdir()) == []


def test_the_table_of_published_weights_is_believed_before_the_hub(hub, tmp_path, monkeypatch):
    row = PublishedWeights(INIT, None, "ab" * 32, "a test")
    monkeypatch.setattr(published_weights, "load", lambda: {"name": row})
    with pytest.raises(WeightsError, match=rf"sha256 {hub.digest}, published is abab"):
        obtain(INIT, tmp_path)


def test_a_token_reaches_the_endpoint_and_not_the_host_that_has_the_content(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    obtain(INIT, tmp_path)
    asked = hub.gets(f"/{REPO}/resolve/{COMMIT}/{PATH}")
    assert [headers["authorization"] for headers in asked] == ["Bearer hf_secret"]
    assert "authorization" not in hub.gets(cdn(hub))[0]


@pytest.mark.parametrize(("code", "words"), [(404, "404 .Not Found"), (401, "401.*login"), (403, "403.*licence")])
def test_a_refusal_of_the_hub_says_what_to_do(hub, tmp_path, code, words):
    hub.head_faults[f"/{REPO}/resolve/main/{PATH}"] = [status(code)]
    with pytest.raises(WeightsError, match=rf"{words}[\s\S]*elsewhere and put it at[\s\S]*HF_ENDPOINT"):
        obtain(INIT, tmp_path)


@pytest.mark.parametrize("variable", ["PODS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_names_address_place_and_mirrors_and_asks_nobody(hub, home, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsError) as caught:
        obtain(INIT, tmp_path)
    message = str(caught.value)
    place = home / f".cache/cvpods_ext/weights/huggingface.co/{REPO}/resolve/main/{PATH}"
    url = f"https://huggingface.co/{REPO}/resolve/main/{PATH}"
    for words in (f"{variable}=1 forbids", f"Download {url}\nelsewhere and put it at {place}", "HF_ENDPOINT"):
        assert words in message
    assert hub.seen == []
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    assert obtain(INIT, tmp_path) == place  # the advice works


def test_without_a_network_the_error_comes_at_once(tmp_path, monkeypatch):
    with FileServer() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"no connection to 127\.0\.0\.1"):
        obtain(INIT, tmp_path)
    assert time.monotonic() - started < 5


def test_a_mirror_that_knows_no_commits_is_a_plain_server(tmp_path, home, monkeypatch, content):
    with FileServer({f"/{REPO}/resolve/main/{PATH}": content}) as mirror:
        monkeypatch.setenv("HF_ENDPOINT", mirror.url)
        found = obtain(INIT, tmp_path)
        assert found.read_bytes() == content
        asked = len(mirror.seen)
        assert obtain(INIT, tmp_path) == found
        assert len(mirror.seen) == asked
    assert home in found.parents


def test_a_web_page_instead_of_plain_weights_is_refused_and_not_kept(tmp_path, home):
    with FileServer({"/w.pth": b"<html>please log in</html>"}) as server:
        with pytest.raises(WeightsError, match="nothing was kept"):
            obtain(f"{server.url}/w.pth", tmp_path)
        server.files["/w.pth"] = b"<html>"
        server.types["/w.pth"] = "text/html"
        with pytest.raises(WeightsError, match="answers with a web page"):
            obtain(f"{server.url}/w.pth", tmp_path)
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_weights_of_detectron2_go_into_its_cache(tmp_path, home, monkeypatch, content):
    with FileServer({"/detectron2/a/model.pkl": content}) as server:
        monkeypatch.setattr(addresses, "DETECTRON2_URL", f"{server.url}/detectron2/")
        found = obtain("detectron2://a/model.pkl", tmp_path)
    assert found == home / ".torch/iopath_cache/detectron2/a/model.pkl"


def test_weights_are_not_fetched_without_encryption(tmp_path):
    with pytest.raises(WeightsError, match="not encrypted"):
        obtain("http://example.org/w.pth", tmp_path)

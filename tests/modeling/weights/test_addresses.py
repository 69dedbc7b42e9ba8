"""What addresses of weights mean, and where their files lie."""

from pathlib import Path

import pytest

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.addresses import HubFile, cache_candidates, hub_file, place_for, url_of

FILE = "Yuxin-CV/EVA-02/eva02/det/eva02_L_lvis_sys.pth"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("PODS_WEIGHTS", "FVCORE_CACHE", "CVPODS_CACHE", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("address", "revision"),
    [
        (f"hf://{FILE}", "main"),
        (f"hf://{FILE}@v1", "v1"),
        ("hf://Yuxin-CV/EVA-02@v1/eva02/det/eva02_L_lvis_sys.pth", "v1"),
        ("hf://Yuxin-CV/EVA-02@refs%2Fpr%2F1/eva02/det/eva02_L_lvis_sys.pth", "refs/pr/1"),
        ("https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/det/eva02_L_lvis_sys.pth", "main"),
        ("https://huggingface.co/Yuxin-CV/EVA-02/blob/main/eva02/det/eva02_L_lvis_sys.pth", "main"),
        ("https://hf.co/Yuxin-CV/EVA-02/resolve/v1/eva02/det/eva02_L_lvis_sys.pth?download=true", "v1"),
    ],
)
def test_every_form_of_an_address_of_the_hub_means_the_same_file(address, revision):
    assert hub_file(address) == HubFile("Yuxin-CV/EVA-02", "eva02/det/eva02_L_lvis_sys.pth", revision)
    assert url_of(address) == hub_file(address).url()


def test_the_address_of_a_file_of_the_hub_is_quoted():
    file = HubFile("a/b", "c d.pth", "refs/pr/1")
    assert file.url("https://mirror.example") == "https://mirror.example/a/b/resolve/refs%2Fpr%2F1/c%20d.pth"


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://owner",
        "hf://owner/repo",
        "hf://owner/repo/",
        "hf://owner/repo/../../../etc/passwd",
        "hf://owner/repo/a//b",
        "hf://../repo/a.pth",
        "hf://owner/re po/a.pth",
        "hf://owner/repo@../a.pth",
        "https://huggingface.co/owner/repo/resolve/main/%2e%2e/a.pth",
        "hf://owner/repo/a\n.pth",
        "hf://datasets/owner/repo/a.pth",
        "hf://owner/repo/a\\..\\b.pth",
    ],
)
def test_broken_addresses_of_the_hub_name_the_form(address):
    with pytest.raises(WeightsError, match="hf://owner/repository/folder/file"):
        url_of(address)


def test_other_addresses_are_no_files_of_the_hub():
    assert hub_file("detectron2://a.pkl") is None
    assert hub_file("https://example.org/a/b/resolve/main/c.pth") is None
    assert hub_file("https://huggingface.co/a/b") is None
    assert url_of("a/b.pth") is None
    assert url_of("none") is None


def test_downloads_go_where_the_library_of_such_files_looks(home, monkeypatch):
    zoo, torchvision = url_of("detectron2://a/b.pkl"), "https://download.pytorch.org/models/resnet50.pth"
    assert place_for(zoo) == home / ".torch/iopath_cache/detectron2/a/b.pkl"
    assert place_for(torchvision) == home / ".cache/torch/hub/checkpoints/resnet50.pth"
    assert place_for("https://example.org/a/b.pth") == home / ".cache/cvpods_ext/weights/example.org/a/b.pth"
    monkeypatch.setenv("FVCORE_CACHE", "/d2")
    monkeypatch.setenv("TORCH_HOME", "/torch")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert place_for(zoo) == Path("/d2/detectron2/a/b.pkl")
    assert place_for(torchvision) == Path("/torch/hub/checkpoints/resnet50.pth")
    assert place_for("https://example.org/b.pth") == Path("/cache/cvpods_ext/weights/example.org/b.pth")
    for url in (zoo, torchvision, "https://example.org/a/b.pth"):
        assert place_for(url) in cache_candidates(url)


def test_files_of_one_path_on_two_hosts_do_not_take_each_others_place():
    assert place_for("https://a.example/w.pth") != place_for("https://b.example/w.pth")


def test_an_address_cannot_lead_out_of_a_cache(home):
    for url in ("https://example.org/../../../etc/passwd", "https://example.org//etc/passwd"):
        assert place_for(url) == home / ".cache/cvpods_ext/weights/example.org/etc/passwd"
    with pytest.raises(WeightsError, match="names no file"):
        place_for("https://example.org/")

"""From model.init to a file: every place is looked at, and every failure says what to do."""

import pytest

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.addresses import place_for
from cvpods_ext.modeling.weights.locate import locate

ZOO = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A machine without any weights."""
    caches = ("PODS_WEIGHTS", "CVPODS_CACHE", "FVCORE_CACHE", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE")
    for name in (*caches, "PODS_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def experiment(root, name):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.py").write_text("")
    return folder


@pytest.mark.parametrize("init", ["none", ""])
def test_none_means_from_scratch(home, tmp_path, init):
    assert locate(init, tmp_path) is None


@pytest.mark.parametrize(
    "place",
    [
        ".torch/iopath_cache/detectron2/ImageNetPretrained/MSRA/R-50.pkl",
        ".torch/fvcore_cache/detectron2/ImageNetPretrained/MSRA/R-50.pkl",
        ".torch/cvpods_cache/detectron2/ImageNetPretrained/MSRA/R-50.pkl",
        ".cache/cvpods_ext/weights/detectron2/ImageNetPretrained/MSRA/R-50.pkl",
    ],
)
def test_zoo_weights_are_found_in_the_caches_of_the_home(home, tmp_path, place):
    file = put(home / place)
    assert locate(ZOO, tmp_path) == file
    assert locate("https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl", tmp_path) == file


@pytest.mark.parametrize(
    "place", ["R-50.pkl", "ImageNetPretrained/MSRA/R-50.pkl", "detectron2/ImageNetPretrained/MSRA/R-50.pkl"]
)
def test_the_weights_folder_of_the_user_comes_first(home, tmp_path, monkeypatch, place):
    put(home / ".torch/iopath_cache/detectron2/ImageNetPretrained/MSRA/R-50.pkl")
    monkeypatch.setenv("PODS_WEIGHTS", str(tmp_path / "own"))
    file = put(tmp_path / "own" / place)
    assert locate(ZOO, tmp_path) == file


@pytest.mark.parametrize("variable", ["CVPODS_CACHE", "FVCORE_CACHE"])
def test_caches_named_by_variables_are_looked_at(home, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    file = put(tmp_path / "cache/detectron2/ImageNetPretrained/MSRA/R-50.pkl")
    assert locate(ZOO, tmp_path) == file


def test_absent_zoo_weights_name_the_download_and_the_place_to_put_them(home, tmp_path):
    with pytest.raises(WeightsError) as caught:
        locate(ZOO, tmp_path)
    message = str(caught.value)
    url = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    target = place_for(url)
    assert f"Download {url}\nelsewhere and put it at {target}" in message
    assert f"pods_weights fetch {ZOO}" in message
    assert "model.init=none" in message
    assert str(home / ".torch/iopath_cache/detectron2") in message
    put(target)
    assert locate(ZOO, tmp_path) == target  # the advice works


def test_a_path_is_relative_to_the_experiment_then_to_the_current_folder(home, tmp_path, monkeypatch):
    folder = experiment(tmp_path / "zoo", "a")
    monkeypatch.chdir(tmp_path)
    here = put(tmp_path / "weights.pth")
    assert locate("weights.pth", folder) == here
    beside = put(folder / "weights.pth")
    assert locate("weights.pth", folder) == beside
    assert locate(str(here), folder) == here


def test_an_absent_path_lists_where_was_looked(home, tmp_path, monkeypatch):
    folder = experiment(tmp_path, "a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        locate("w.pth", folder)
    for words in (str(folder / "w.pth"), str(tmp_path / "w.pth"), "model.init=none"):
        assert words in str(caught.value)


def test_an_experiment_starts_from_its_trained_neighbour(home, tmp_path, monkeypatch):
    first, second = experiment(tmp_path, "first.1x"), experiment(tmp_path, "second.1x")
    inside = put(first / "outputs/model_final.pth")
    assert locate("experiment:first.1x", second) == inside
    monkeypatch.setenv("PODS_OUTPUT", str(tmp_path / "out"))
    elsewhere = put(tmp_path / "out/first.1x/model_final.pth")
    assert locate("experiment:first.1x", second) == elsewhere


def test_an_untrained_neighbour_says_which_command_to_run(home, tmp_path):
    experiment(tmp_path, "first.1x")
    with pytest.raises(
        WeightsError, match=r"has not been trained yet[\s\S]*cd \.\./first\.1x && pods_train --num-gpus 8"
    ):
        locate("experiment:first.1x", experiment(tmp_path, "second.1x"))


def test_a_misspelt_neighbour_is_suggested(home, tmp_path):
    experiment(tmp_path, "mask_rcnn.res50.1x")
    with pytest.raises(WeightsError, match=r"Did you mean 'mask_rcnn\.res50\.1x'"):
        locate("experiment:mask_rcnn.res5.1x", experiment(tmp_path, "second.1x"))

"""pods_new: from a json and a folder of images to a table with the right groups."""

import json
import sys

import numpy as np
import pytest
from tiny_dataset import write_photo

from cvpods_ext.cli import new as pods_new
from cvpods_ext.cli import test as pods_test
from cvpods_ext.cli import train as pods_train
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.evaluation.results import Results

NAMES = ("red fox", "great grey owl", "pine marten", "common toad", "wild boar", "sand lizard", "stag beetle")
COUNTS = (60, 30, 15, 8, 4, 2, 1)


def run(command, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, arguments)])
    command.main()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """60 images, 7 classes of 60 to 1 images, ids from 0, names and files with spaces."""
    monkeypatch.delenv("PODS_DATASETS", raising=False)
    (tmp_path / "my photos").mkdir()
    images, annotations = [], []
    for i in range(60):
        write_photo(tmp_path / "my photos" / f"photo {i}.png", 64, 48, seed=i)
        images.append(dict(id=i, file_name=f"photo {i}.png", width=64, height=48))
        for c, count in enumerate(COUNTS):
            if (i * count) // 60 != ((i + 1) * count) // 60:
                corners = [4 + c, 5, 30 + c, 5, 30 + c, 33, 4 + c, 33]
                annotations.append(
                    dict(id=len(annotations), image_id=i, category_id=c, bbox=[4 + c, 5, 26, 28], area=728.0,
                         iscrowd=0, segmentation=[corners])
                )  # fmt: skip
    categories = [dict(id=c, name=name) for c, name in enumerate(NAMES)]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return tmp_path


def make(own, monkeypatch, *arguments, train="all.json"):
    run(pods_new, monkeypatch, own / "birds", "--train", own / train, "--images", own / "my photos", *arguments)
    return own / "birds"


MINI = "mask_rcnn.narrow.fpn64.box.96.trunk"


def test_a_new_user_gets_a_table_with_the_right_groups(own, monkeypatch, capsys):
    folder = make(own, monkeypatch, "--from", MINI, "--batch-size", "4")
    said = capsys.readouterr().out
    assert "48 images to train on, 12 to test on" in said
    assert "classes:  7 (red fox, great grey owl" in said
    words = ("--dir", folder, "--device", "cpu", "schedule.iters=2", "schedule.warmup_iters=1", "model.init='none'")
    run(pods_train, monkeypatch, *words)
    run(pods_test, monkeypatch, *words)
    results = Results.read(folder / "outputs" / "results.json")
    config = load_experiment(folder).config
    train = json.loads((folder / "train.json").read_text())
    counts = np.bincount([one["category_id"] for one in train["annotations"]], minlength=7)
    low, high = config.data.frequency_limits
    groups = [int((counts <= low).sum()), int(((counts > low) & (counts <= high)).sum()), int((counts > high).sum())]
    assert min(groups) > 0
    assert sum(groups) == 7
    assert f"rare <= {low} < common <= {high} < frequent" in results.settings["frequency"]
    assert all(results.metrics["segm"][name] is not None for name in ("AP", "APc", "APf"))


def test_settings_follow_the_data_and_say_why(own, monkeypatch, capsys):
    folder = make(own, monkeypatch)
    config, said = load_experiment(folder).config, capsys.readouterr().out
    assert config.data.sampler == "repeat_factor"
    assert "repeats no image" not in said
    assert 0.1 < config.data.repeat_threshold < 0.5
    assert config.schedule.iters == 1000
    assert "about 333 epochs of 48 images" in said
    assert config.model.init.endswith("R-50.pkl")
    assert config.data.channels == "BGR"  # those weights want it
    assert config.test.metrics == ("bbox", "segm")
    assert "test.metrics" not in (folder / "config.py").read_text()


def test_boxes_alone_give_a_detector_without_masks(own, monkeypatch):
    content = json.loads((own / "all.json").read_text())
    for one in content["annotations"]:
        del one["segmentation"]
    (own / "boxes.json").write_text(json.dumps(content))
    folder = make(own, monkeypatch, train="boxes.json")
    assert "faster_rcnn_fpn" in (folder / "net.py").read_text()
    assert load_experiment(folder).config.test.metrics == ("bbox",)


def test_files_below_the_data_root_are_named_from_there(own, monkeypatch):
    (own / "datasets").mkdir()
    for name in ("all.json", "my photos"):
        (own / name).rename(own / "datasets" / name)
    args = ("--train", own / "datasets/all.json", "--val", own / "datasets/all.json")
    run(pods_new, monkeypatch, own / "birds", *args, "--images", own / "datasets/my photos")
    data = load_experiment(own / "birds").config.data
    assert (data.train.annotations, data.train.images) == ("all.json", "my photos")
    assert not (own / "birds" / "train.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "mask_rcn.res50"], "is neither an experiment folder nor the name of one"),
        (["--from", "mask_rcnn.res50.fpn.lvisv1.multiscale.disalign.1x"], "starts from a trained mask_rcnn.res50"),
        (["--from", "eva02-tiny-p14_in21k-pre_3rdparty_in1k"], "is no detector"),
        (["--split", "1.5"], "cannot be split off"),
        (["--val", "nowhere.json"], "nowhere.json"),
        (["--batch-size", "-1"], "a step has at least one image"),
    ],
)
def test_mistakes_leave_nothing_behind(own, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit):
        make(own, monkeypatch, *arguments)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (own / "birds").exists()


def test_a_folder_that_is_there_is_kept(own, monkeypatch, capsys):
    (own / "birds").mkdir()
    (own / "birds" / "mine").write_text("x")
    with pytest.raises(SystemExit):
        make(own, monkeypatch)
    assert "is there already" in capsys.readouterr().err
    assert (own / "birds" / "mine").read_text() == "x"


def test_without_a_terminal_what_is_missing_is_named(own, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(SystemExit):
        run(pods_new, monkeypatch, own / "birds")
    assert "--train is missing: annotations to train on" in capsys.readouterr().err


def test_a_terminal_is_asked(own, monkeypatch):
    answers = iter([str(own / "all.json"), str(own / "my photos")])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.prompt.Prompt.ask", lambda question: next(answers))
    run(pods_new, monkeypatch, own / "birds")
    assert (own / "birds" / "config.py").is_file()

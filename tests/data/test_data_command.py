import csv
import json
import re
import sys

import pytest
from shared import shared
from tiny_dataset import annotation, categories, image, write_dataset, write_json

from cvpods_ext.cli import data as command


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command as the shell would; returns (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pods_data", *map(str, arguments)])
        status = 0
        try:
            command.main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_help_ends_in_examples(run):
    status, out, _ = run("--help")
    assert status == 0
    commands = "doctor | download | num-shots | stats | label-maps | synth | synth-classes"
    assert out.index("examples:") > out.index(commands)
    assert "pods_data doctor my_train.json --images my_images" in out


def test_doctor_succeeds_on_sound_data_and_fails_on_missing_images(run, tmp_path):
    write_dataset(tmp_path)
    status, out, _ = run("doctor", "train.json", "--decode")
    assert status == 0
    assert "nothing is missing" in out
    assert "all 6 images decode" in out
    (tmp_path / "1.png").unlink()
    status, out, _ = run("doctor", "train.json")
    assert status == 1
    assert "1 of 6 images are not in" in out
    assert "problems: 1" in out


def test_doctor_in_an_experiment_folder_checks_what_it_needs(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    (tmp_path / "config.py").write_text(
        "from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE\n"
        "from cvpods_ext.config import override\nconfig = override(BASE, model=dict(init='none'))\n"
    )
    (tmp_path / "net.py").write_text("")
    status, out, _ = run("doctor")
    assert status == 0
    assert "lvis_v0.5_train" in out
    assert "lvis_v0.5_val" in out
    assert "lvis_v1" not in out


@pytest.mark.parametrize(("offline", "level"), [("1", "problem"), ("0", "note")])
def test_absent_weights_at_an_address_are_a_problem_only_where_nothing_may_be_fetched(
    run, tmp_path, monkeypatch, offline, level
):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    monkeypatch.setenv("PODS_OFFLINE", offline)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.py").write_text(
        "from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE\n"
        "from cvpods_ext.config import override\nconfig = override(BASE, model=dict(init='hf://a/b/absent.pth'))\n"
    )
    (tmp_path / "net.py").write_text("")
    status, out, _ = run("doctor")
    assert status == (level == "problem")
    assert re.search(rf"{level} +model\.init +the weights 'hf://a/b/absent\.pth' are not on this machine", out)


def test_doctor_says_which_command_fetches_what_is_missing(run):
    status, out, _ = run("doctor", "coco_2017_val")
    assert (status, "`pods_data download NAME` fetches" in out) == (1, True)


def test_doctor_misses_the_weights_that_training_starts_from(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    (tmp_path / "config.py").write_text(
        "from cvpods_ext.config.bases import MASK_RCNN_LVIS05 as BASE\n"
        "from cvpods_ext.config import override\nconfig = override(BASE, model=dict(init='absent.pth'))\n"
    )
    (tmp_path / "net.py").write_text("")
    status, out, _ = run("doctor")
    assert status == 1
    assert "absent.pth" in out


def test_doctor_elsewhere_checks_all_known_sets(run):
    status, out, _ = run("doctor")
    assert status == 1
    for name in ("lvis_v1_val.json", "lvis_v0.5_train.json", "instances_val2017.json"):
        assert name in out


@pytest.mark.parametrize(("count", "expected"), [("image", [3, 1, 7, 2]), ("instance", [3, 3, 7, 2])])
def test_num_shots_writes_what_losses_read(run, tmp_path, count, expected):
    entries = [annotation(number, 1, 3) for number in (1, 2, 3)] + [annotation(4, 1, 7), annotation(5, 2, 7)]
    write_json(tmp_path / "train.json", [image(1), image(2)], entries, categories(3, 7))
    status, out, _ = run("num-shots", "train.json", "--count", count, "--out", "shots.json")
    assert status == 0
    assert json.loads((tmp_path / "shots.json").read_text()) == expected
    assert json.loads((tmp_path / "shots.json.origin.json").read_text())["count"] == f"{count}s per class"
    assert f"{count}s per class for 2 classes" in out
    status, _, err = run("num-shots", "train.json", "--out", "shots.json")
    assert status == 2
    assert "pass --force" in err


def test_stats_report_groups_expansion_and_factors(run, tmp_path):
    write_dataset(tmp_path)
    status, out, _ = run("stats", "train.json", "--threshold", "4", "--csv", "factors.csv")
    assert status == 0
    assert "6 images with annotations, 12 instances, 12 (image, class) pairs" in out
    # both classes are in every image, half of the instances each: RFS sqrt(4 / 1), IRFS sqrt(4 / sqrt(1 / 2))
    rows = list(csv.DictReader((tmp_path / "factors.csv").open()))
    assert [row["name"] for row in rows] == ["class 3", "class 7"]
    assert all(float(row["rfs"]) == 2 for row in rows)
    assert all(float(row["irfs"]) == pytest.approx(4**0.5 / 0.5**0.25, rel=1e-5) for row in rows)
    assert "2.000" in out


def test_synth_writes_a_set_that_the_doctor_accepts(run, tmp_path):
    status, out, _ = run("synth", tmp_path / "box", "--images-train", 30, "--images-val", 10, "--num-classes", 6)
    assert status == 0
    assert "lvis_box_train.json" in out
    status, out, _ = run(
        "doctor", tmp_path / "box" / "lvis" / "lvis_box_train.json", "--images", tmp_path / "box" / "coco"
    )
    assert status == 0
    assert "30 images" in out


def test_mistakes_are_answered_on_one_line_with_status_2(run):
    status, _, err = run("stats", "lvis_v1_trian")
    assert status == 2
    assert err.startswith("pods_data: unknown data set 'lvis_v1_trian': did you mean 'lvis_v1_train'?")
    status, _, err = run("num-shots", "no.json", "--out", "x.npy")
    assert status == 2
    assert "no.json does not exist" in err
    assert "Traceback" not in err


def test_synth_writes_label_maps_of_both_splits(run, tmp_path):
    sizes = ("--images-train", 12, "--images-val", 5, "--num-classes", 4)
    status, out, _ = run("synth", tmp_path / "box", *sizes, "--label-maps")
    assert status == 0
    assert "label_maps" in out
    for split, count in (("train", 12), ("val", 5)):
        folder = tmp_path / "box" / "label_maps" / split
        assert len(list(folder.rglob("*.png"))) == count
        assert len((folder / "classes.txt").read_text().split("\n")) >= 5


def test_synth_makes_the_tail_that_is_asked_for(run, tmp_path):
    sizes = ("--images-train", 24, "--images-val", 12, "--num-classes", 4)
    assert run("synth", tmp_path / "flat", *sizes, "--spread", 0, "--val-flatness", 1, "--min-images", 5)[0] == 0
    content = json.loads((tmp_path / "flat" / "lvis" / "lvis_box_train.json").read_text())
    options = content["info"]["options"]
    assert (options["spread"], options["val_flatness"], options["min_images"]) == (0.0, 1.0, 5)
    counts = [category["image_count"] for category in content["categories"]]
    assert min(counts) >= 5
    assert max(counts) - min(counts) <= 1

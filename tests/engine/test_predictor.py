"""Models by folder or name, on every kind of picture; what they find is what a test finds, to the last digit."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_experiment
import torch
from PIL import Image

import cvpods_ext
from cvpods_ext.cli import predict as pods_predict
from cvpods_ext.cli import test as pods_test
from cvpods_ext.cli import train as pods_train
from cvpods_ext.config import playground
from cvpods_ext.data.annotations import annotations
from cvpods_ext.data.catalog import resolve
from cvpods_ext.errors import ConfigError, DataError, WeightsError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.tasks.detection_result import DetectionResult


def run(command, *arguments):
    before = sys.argv
    sys.argv = [command.__name__, *map(str, arguments)]
    try:
        command.main()
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with weights, its test exported as a results json, and the test images by id."""
    root = tmp_path_factory.mktemp("predictor")
    folder = tiny_experiment.make_experiment(root / "tiny", tiny_experiment.make_data(root))
    run(pods_train, "--dir", folder, "--device", "cpu", "data.workers=0")
    run(pods_test, "--dir", folder, "--device", "cpu", "--export", root / "tested.json", "data.workers=0")
    model = cvpods_ext.load(folder, device="cpu")
    known = annotations.load(resolve(model.experiment.config.data.test, folder))
    return model, {int(image_id): known.image_path(i) for i, image_id in enumerate(known.image_ids)}


@pytest.fixture(scope="module")
def tested(trained):
    found = json.loads((trained[0].experiment.folder.parent / "tested.json").read_text())
    by_image = {}
    for one in found:
        by_image.setdefault(one["image_id"], []).append(one)
    return by_image


def test_the_numbers_are_those_of_pods_test(trained, tested):
    model, files = trained
    results = model.predict(list(files.values()))
    assert [result.to_coco(image_id) for image_id, result in zip(files, results, strict=True)] == [
        tested[image_id] for image_id in files
    ]
    first = results[0]
    assert isinstance(first, DetectionResult)
    assert len(first) == len(first.boxes) == len(first.names) == len(first.scores) == len(first.labels)
    assert first.masks is None
    assert first.rows()[0]["score"] == float(first.scores[0])
    assert list(first.rows()[0]) == list(first.columns)


def test_a_picture_may_be_a_path_an_array_a_pil_image_or_a_tensor(trained):
    model, files = trained
    path = next(iter(files.values()))
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    array = np.asarray(image)
    expected = model.predict(path)
    for picture in (str(path), image, array, torch.from_numpy(array.copy()).permute(2, 0, 1)):
        found = model.predict(picture)
        assert np.array_equal(found.boxes, expected.boxes)
        assert np.array_equal(found.scores, expected.scores)
    assert expected.source == str(path)
    assert found.source == "picture 1"
    assert found.plot(0.0).size[0] >= image.width
    gray = model.predict(array[..., 0])
    assert np.array_equal(gray.pixels, np.repeat(array[None, ..., 0], 3, axis=0))


def test_a_folder_a_pattern_and_a_list_give_lists(trained):
    model, files = trained
    folder = next(iter(files.values())).parent
    assert len(model.predict(folder)) == len(files)
    assert len(model.predict(f"{folder}/*.jpg")) == len(files)
    assert len(list(model.stream(str(folder)))) == len(files)
    assert len(list(model.stream(folder / next(iter(files.values())).name))) == 1
    assert [type(one) for one in model.predict([folder / path.name for path in files.values()])] == [
        DetectionResult
    ] * len(files)


def test_results_come_one_by_one_and_a_broken_file_is_named(trained, tmp_path):
    model, files = trained
    good = next(iter(files.values()))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    stream = model.stream([good, tmp_path / "broken.jpg", good])
    with pytest.raises(DataError, match=r"broken\.jpg"):
        list(stream)
    found, broken = [], []
    for position, _ in model.readable([good, tmp_path / "broken.jpg", good], 0, broken):
        found.append(position)
    assert found == [0, 2]
    assert [one.image_id for one in broken] == [2]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "must be uint8"),
        (np.zeros((4, 4, 4), np.uint8), "must be uint8"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "must be uint8"),
        (7, "a picture is a path"),
        ([], "no pictures"),
        ("nowhere.jpg", "does not exist"),
    ],
)
def test_what_is_no_picture_is_told(trained, picture, message):
    with pytest.raises(ConfigError, match=message):
        trained[0].predict(picture)


@pytest.mark.parametrize("device", ["abc", "cuda:99", "meta:x"])
def test_a_device_that_cannot_be_used_is_told(trained, device):
    with pytest.raises(ConfigError, match=f"device='{device}' cannot be used"):
        cvpods_ext.load(trained[0].experiment.folder, device=device)


def test_the_number_of_workers_is_not_negative(trained):
    with pytest.raises(ConfigError, match="workers=-1: give the number"):
        list(trained[0].stream(list(trained[1].values()), workers=-1))


def test_weights_are_needed_unless_none_are_asked_for(trained, tmp_path, caplog):
    folder = trained[0].experiment.folder
    with pytest.raises(WeightsError, match="nothing is trained yet"):
        cvpods_ext.load(folder, overrides=[f"output={tmp_path}"])
    with pytest.raises(WeightsError, match="does not exist"):
        cvpods_ext.load(folder, tmp_path / "absent.pth")
    model = cvpods_ext.load(folder, "none", device="cpu")
    assert model.weights is None
    assert "means nothing" in caplog.text
    assert not model.network.training


def test_experiments_are_found_by_name_and_close_names_are_told(trained):
    names = cvpods_ext.list_models("mask_rcnn.res50.fpn.lvisv1")
    assert len(names) > 5
    assert names == sorted(names)
    assert playground.find(names[0]).name == names[0]
    assert playground.find(trained[0].experiment.folder) == trained[0].experiment.folder
    with pytest.raises(ConfigError, match=f"did you mean {names[0][:20]}"):
        cvpods_ext.load(names[0][:-1])
    with pytest.raises(ConfigError, match="list_models"):
        cvpods_ext.load("zzz")
    assert cvpods_ext.list_models("zzz") == []
    two = {name: folders for name, folders in playground._folders().items() if len(folders) > 1}
    for name, folders in two.items():
        with pytest.raises(ConfigError, match="is the name of"):
            playground.find(name)
        assert playground.find(playground._below(folders[0])) == folders[0]


def test_importing_the_package_imports_no_torch_and_lists_its_names():
    code = "import sys, cvpods_ext; cvpods_ext.list_models(); assert 'torch' not in sys.modules; print(cvpods_ext.load)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = cvpods_ext.lod


# The command


def predict(*arguments):
    run(pods_predict, *arguments)


def test_the_command_writes_pictures_json_and_csv(trained, tested, tmp_path, capsys):
    model, files = trained
    folder = next(iter(files.values())).parent
    settings = ("--dir", model.experiment.folder, "--device", "cpu", "data.workers=0")
    outputs = ("--out", tmp_path / "found", "--json", tmp_path / "f.json", "--csv", tmp_path / "f.csv")
    predict(folder, *settings, *outputs, "--threshold", "0")
    found = json.loads((tmp_path / "f.json").read_text())
    by_name = {path.name: image_id for image_id, path in files.items()}
    renamed = [{**one, "image_id": by_name[one["file_name"].rsplit("/", 1)[1]]} for one in found]
    for one in renamed:
        del one["file_name"]
    assert renamed == [one for path in sorted(files.values()) for one in tested[by_name[path.name]]]
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert lines[0] == "file,category_id,name,score,x1,y1,x2,y2"
    assert len(lines) == len(found) + 1
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == sorted(path.name for path in files.values())
    out = capsys.readouterr().out
    assert f"pictures: {tmp_path / 'found'}" in out
    assert all(path.name in out for path in files.values())


@pytest.mark.slow
def test_two_processes_write_what_one_writes(trained, tmp_path):
    model, files = trained
    folder = next(iter(files.values())).parent
    texts = []
    for processes in ("1", "2"):
        out = tmp_path / f"{processes}.json"
        command = [sys.executable, "-m", "cvpods_ext.cli.predict", str(folder), "--dir", str(model.experiment.folder)]
        command += ["--device", "cpu", "--num-gpus", processes, "--no-pictures", "--json", str(out)]
        subprocess.run(command, check=True)
        texts.append(out.read_text())
    assert texts[0] == texts[1]


def test_broken_files_are_told_at_the_end_and_the_others_are_done(trained, tmp_path, capsys):
    model, files = trained
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    with Image.open(next(iter(files.values()))) as image:
        image.save(tmp_path / "in" / "good.png")
    with pytest.raises(SystemExit) as stopped:
        predict(tmp_path / "in", "--dir", model.experiment.folder, "--device", "cpu", "--out", tmp_path / "out")
    assert stopped.value.code == 2
    assert "1 of 2 pictures cannot be read" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.x=1"], "no picture is given"),
        (["nowhere"], "nowhere does not exist"),
        (["{image}", "--no-pictures"], "leaves nothing to write"),
        (["{image}", "--json", "{image}"], "uses itself"),
        (["{image}", "--out", "{folder}"], "would be overwritten"),
        (["{image}", "--weights", "absent.pth"], "absent.pth does not exist"),
        (["{image}", "model.nothing=1"], "nothing"),
    ],
)
def test_mistakes_are_told_before_the_work(trained, tmp_path, monkeypatch, capsys, arguments, message):
    model, files = trained
    monkeypatch.chdir(tmp_path)
    with Image.open(next(iter(files.values()))) as image:
        image.save(tmp_path / "photo.jpg")
    places = {"image": str(tmp_path / "photo.jpg"), "folder": str(tmp_path)}
    before = (tmp_path / "photo.jpg").read_bytes()
    monkeypatch.setattr("cvpods_ext.engine.distributed.launch.launch", lambda *_: pytest.fail("the work began"))
    with pytest.raises(SystemExit) as stopped:
        predict(*(one.format(**places) for one in arguments), "--dir", model.experiment.folder, "--device", "cpu")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "photo.jpg").read_bytes() == before


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path):
    from cvpods_ext.engine.predict_files import picture_names

    files = [tmp_path / "in" / name for name in ("a.png", "a.jpg", "b/a.png")]
    assert picture_names(files, tmp_path / "out") == [
        tmp_path / "out" / name for name in ("a.jpg", "a.jpg.jpg", "b/a.jpg")
    ]


def test_a_test_from_python_gives_the_numbers_of_the_command(trained, tmp_path):
    folder = trained[0].experiment.folder
    expected = Results.read(next(folder.rglob("results.json")))
    found = cvpods_ext.evaluate(folder, device="cpu", overrides=["data.workers=0"])
    assert found.metrics == expected.metrics
    assert found.content == expected.content
    imported = cvpods_ext.evaluate(folder, detections=folder.parent / "tested.json")
    assert imported.is_imported
    assert imported.metrics["bbox"]["AP"] == pytest.approx(expected.metrics["bbox"]["AP"])


def test_a_comparison_has_the_exact_numbers_of_the_table(trained):
    folder = trained[0].experiment.folder
    expected = Results.read(next(folder.rglob("results.json")))
    table = cvpods_ext.compare(folder, families=["bbox"], metrics=["AP", "APr"])
    rows = [row for row in table.rows() if row["experiment"].startswith("tiny")]
    assert rows[0]["AP"] == expected.metrics["bbox"]["AP"]
    assert rows[0]["table"].endswith(" bbox")
    assert "experiment" in str(table)
    assert max(map(len, str(table).splitlines())) <= 100
    assert table.to_markdown().startswith("**")
    with pytest.raises(ConfigError, match="unknown metric 'APx'"):
        cvpods_ext.compare(folder, metrics=["APx"])

"""pods_test --detections and --export: other programs' files in, theirs and everybody's layout out."""

import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pycocotools.mask as coco_mask
import pytest

from cvpods_ext.cli import compare as pods_compare
from cvpods_ext.cli import test as pods_test
from cvpods_ext.data.synthetic.write import generate
from cvpods_ext.evaluation.detection.shards import shard_files
from cvpods_ext.evaluation.results import Results

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI
config = override(MINI, model=dict(init="none"))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("given") / "datasets", images_train=8, images_val=12, num_classes=4)


@pytest.fixture
def experiment(files, tmp_path, monkeypatch):
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG)
    (folder / "net.py").write_text("def build_model(cfg):\n    raise AssertionError('no model is needed')\n")
    monkeypatch.setenv("PODS_DATASETS", str(files.root))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def theirs(files, tmp_path):
    """Every second object, found exactly; one detection has another category."""
    document = json.loads(files.val.read_text())
    size = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    rows = []
    for k, one in enumerate(document["annotations"][::2]):
        rle = coco_mask.merge(coco_mask.frPyObjects(one["segmentation"], *size[one["image_id"]]))
        mask = {"size": rle["size"], "counts": rle["counts"].decode()}
        row = {"image_id": one["image_id"], "category_id": one["category_id"], "bbox": one["bbox"]}
        rows.append({**row, "score": 1 - k / 1000, "segmentation": mask})
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(rows))
    return path


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, arguments)])
    command.main()


def fails(monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, pods_test, *arguments)
    assert stopped.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_their_json_is_evaluated_and_named_and_can_be_compared(experiment, theirs, monkeypatch, capsys):
    run(monkeypatch, pods_test, "--detections", theirs)
    results = Results.read(experiment / "outputs" / "imported" / "theirs" / "results.json")
    assert results.experiment == "theirs"
    assert 30 < results.metrics["segm"]["AP"] < 80
    assert results.provenance["detections"] == "theirs.json"
    assert len(results.provenance["detections_sha256"]) == 64
    assert not (experiment / "results.json").exists(), "this is not the experiment's own result"
    run(monkeypatch, pods_compare, "--intervals", "--resamples", "20", "--task", "segm")
    assert "theirs" in capsys.readouterr().out.split("intervals")[1]


def test_the_same_file_is_imported_once_and_a_new_one_replaces_it(experiment, theirs, monkeypatch):
    run(monkeypatch, pods_test, "--detections", theirs)
    shards = experiment / "outputs" / "imported" / "theirs" / "inference" / "lvis_box_val"
    before = shard_files(shards)[0].stat().st_mtime_ns
    run(monkeypatch, pods_test, "--detections", theirs)
    assert shard_files(shards)[0].stat().st_mtime_ns == before
    theirs.write_text(json.dumps(json.loads(theirs.read_text())[:5]))
    run(monkeypatch, pods_test, "--detections", theirs)
    assert sum(pq.read_metadata(path).num_rows for path in shard_files(shards)) == 5


def test_boxes_only_are_evaluated_on_boxes(experiment, theirs, monkeypatch, caplog):
    rows = [{k: v for k, v in row.items() if k != "segmentation"} for row in json.loads(theirs.read_text())]
    theirs.write_text(json.dumps(rows))
    run(monkeypatch, pods_test, "--detections", theirs)
    results = Results.read(experiment / "outputs" / "imported" / "theirs" / "results.json")
    assert list(results.metrics) == ["bbox"]


def test_a_folder_of_shards_gives_what_the_json_gives(experiment, theirs, monkeypatch, tmp_path):
    run(monkeypatch, pods_test, "--detections", theirs)
    imported = experiment / "outputs" / "imported"
    shutil.copytree(imported / "theirs" / "inference" / "lvis_box_val", tmp_path / "elsewhere")
    run(monkeypatch, pods_test, "--detections", tmp_path / "elsewhere")
    first, second = (Results.read(imported / name / "results.json") for name in ("theirs", "elsewhere"))
    assert first.metrics == second.metrics
    assert len(shard_files(imported / "elsewhere" / "inference" / "lvis_box_val")) == 1


def test_an_export_is_what_came_in_and_viewers_find_images_and_names(experiment, files, theirs, monkeypatch, tmp_path):
    out, labels = tmp_path / "out.json", tmp_path / "labels.json"
    run(monkeypatch, pods_test, "--detections", theirs, "--export", out, "--export-dataset", labels)
    given = json.loads(theirs.read_text())
    assert json.loads(out.read_text()) == given
    document = json.loads(labels.read_text())
    assert [{**one} for one in document["annotations"]] == [
        {"id": k, **one, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0} for k, one in enumerate(given, start=1)
    ]
    truth = json.loads(files.val.read_text())
    assert {one["id"]: one["name"] for one in document["categories"]} == {
        one["id"]: one["name"] for one in truth["categories"]
    }
    assert len(document["images"]) == len(truth["images"])
    images = files.root / "coco"
    assert all((images / one["file_name"]).is_file() for one in document["images"])


def damage(theirs, change):
    rows = json.loads(theirs.read_text())
    change(rows)
    theirs.write_text(json.dumps(rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[3].update(score=float("nan")), "theirs.json, detection 3: score nan is no finite number"),
        (lambda rows: rows[3].update(bbox=[0, 0, -4, 5]), "has a negative side; boxes are [x, y, width, height]"),
        (lambda rows: rows[3].update(image_id=987654), "1 image id that .* does not define, such as [987654]"),
        (lambda rows: rows[3].update(category_id=4321), "1 category id that .* does not define, such as [4321]"),
        (
            lambda rows: rows[3]["segmentation"].update(size=[7, 9], counts=[63]),
            "a mask of size [7, 9] on an image of size .* Masks must be in the pixels of the original image",
        ),
        (
            lambda rows: rows[3]["segmentation"].update(size=[7, 9]),
            "detection 3: the runs of the RLE do not fill an image of its size",
        ),
        (lambda rows: rows[3].pop("segmentation"), "no mask, while other rows have one"),
        (lambda rows: rows[3].pop("score"), "theirs.json, detection 3: score None is"),
    ],
)
def test_bad_detections_are_refused_in_one_message(change, message, experiment, theirs, monkeypatch, capsys):
    import re

    damage(theirs, change)
    said = fails(monkeypatch, capsys, "--detections", theirs)
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), said), said
    assert "Traceback" not in said
    assert not (experiment / "outputs" / "imported" / "theirs" / "results.json").exists()


def test_truncated_and_doubled_shards_are_named(experiment, theirs, monkeypatch, capsys, tmp_path):
    run(monkeypatch, pods_test, "--detections", theirs)
    shard = shard_files(experiment / "outputs" / "imported" / "theirs" / "inference" / "lvis_box_val")[0]
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "detections-0-0.parquet").write_bytes(shard.read_bytes()[:-200])
    said = fails(monkeypatch, capsys, "--detections", folder)
    assert "detections-0-0.parquet is not a complete Parquet file" in said
    for name in ("detections-0-0.parquet", "detections-1-0.parquet"):
        shutil.copy(shard, folder / name)
    said = fails(monkeypatch, capsys, "--detections", folder)
    assert "is in both" in said
    assert "would count twice" in said


def test_nothing_found_at_all_scores_zero(experiment, theirs, monkeypatch):
    theirs.write_text("[]")
    run(monkeypatch, pods_test, "--detections", theirs)
    results = Results.read(experiment / "outputs" / "imported" / "theirs" / "results.json")
    assert results.metrics["bbox"]["AP"] == 0.0
    assert results.settings["images_without_detections"] == 12


def test_what_is_not_there_and_weights_beside_it_are_refused(experiment, theirs, monkeypatch, capsys, tmp_path):
    assert "there is no such file or folder" in fails(monkeypatch, capsys, "--detections", tmp_path / "absent.json")
    assert "no detections-*.parquet" in fails(monkeypatch, capsys, "--detections", tmp_path)
    said = fails(monkeypatch, capsys, "--detections", theirs, "--weights", "x.pth")
    assert "give one of the two" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"category_id": 77},
            "has 1 category id that {val} does not define, such as [77] (first in detection 2)",
        ),
        (
            {"image_id": 9999},
            "has 1 image id that {val} does not define, such as [9999] (first in detection 2)",
        ),
        ({"bbox": [5, 5, -1, 4]}, "{theirs}, detection 2: bbox [5, 5, -1, 4] has a negative side"),
        ({"score": 1.5}, "{theirs}, detection 2: score 1.5 is not in [0, 1]"),
    ],
)
def test_a_refusal_names_their_file_and_entry_not_our_copy(
    change, said, experiment, files, theirs, monkeypatch, capsys
):
    rows = json.loads(theirs.read_text())
    rows[2].update(change)
    theirs.write_text(json.dumps(rows))
    message = fails(monkeypatch, capsys, "--detections", theirs)
    assert said.format(val=files.val, theirs=theirs) in message
    assert "theirs.json" in message
    assert "parquet" not in message


def test_a_refusal_of_a_folder_of_shards_names_the_shard_where_it_lies(
    experiment, theirs, tmp_path, monkeypatch, capsys
):
    run(monkeypatch, pods_test, "--detections", theirs)
    given = tmp_path / "given"
    shutil.copytree(experiment / "outputs" / "imported" / "theirs" / "inference" / "lvis_box_val", given)
    shard = given / "detections-0-0.parquet"
    table = pq.read_table(shard).drop_columns(["entry"])
    metadata = {b"image_ids": pq.read_metadata(shard).metadata[b"image_ids"], b"settings": b"{}"}
    scores = pa.array([2.0, *table.column("score").to_pylist()[1:]])
    table = table.set_column(table.schema.get_field_index("score"), "score", scores).replace_schema_metadata(metadata)
    pq.write_table(table, shard)
    message = fails(monkeypatch, capsys, "--detections", given)
    assert f"{shard}, row 0 (image " in message
    assert "score is not in [0, 1]" in message

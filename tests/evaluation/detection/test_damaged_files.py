"""Whatever is in a file of annotations or detections: a right result or a DataError, never another exception."""

import json
import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evaluation_cases import synthetic, write_case
from mutations import VALUES, damaged

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, doctor
from cvpods_ext.data.detection_dataset import read_targets
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.coco_json import export_json, import_json
from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.tasks.detection_drawing import draw_targets

MANY = 200
few_and_many = pytest.mark.parametrize("seeds", [range(30), pytest.param(range(30, MANY), marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))


def small(seed):
    """Three images, polygons and RLE by turns, LVIS's or COCO's layout."""
    annotations, detections = synthetic(seed, images=3, per_image=6, side=64)
    for number, image in enumerate(annotations["images"]):
        image["file_name"] = f"{number}.png"
        if seed % 2:
            del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for entry in annotations["annotations"][::2]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    for category in annotations["categories"] if seed % 2 else ():
        del category["frequency"]
    return annotations, detections


@few_and_many
def test_damaged_annotations(seeds, tmp_path):
    outcomes = Counter()
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        annotations, detections = small(seed % 4)
        path, shards = write_case(folder, annotations, detections)
        path.write_bytes(damaged(annotations, random.Random(seed)))
        try:
            result = evaluate(path, shards)
            assert all(value is None or 0 <= value <= 100 for value in result["segm"].values())
            outcomes["evaluated"] += 1
        except DataError as error:
            outcomes["refused"] += str(folder) in str(error)  # it names the file
        _as_training_does(path)
    assert outcomes.total() == len(seeds)
    assert min(outcomes["evaluated"], outcomes["refused"]) >= len(seeds) / 20, outcomes


def _as_training_does(path):
    """Everything that reads annotations before, during and after a run."""
    files = DatasetFiles(annotations=str(path), images=str(path.parent))
    assert list(doctor.examine(files, path.parent))
    try:
        annotations = catalog.load(files, path.parent)
    except DataError:
        return
    for position in range(len(annotations)):
        targets = read_targets(annotations, position)
        assert len(targets.boxes) == len(targets.labels)
        if max(annotations.size(position)) <= 1000:
            names = [category.name for category in annotations.categories]
            draw_targets(torch.zeros((3, *annotations.size(position)), dtype=torch.uint8), targets, names)


@few_and_many
def test_damaged_results(seeds, tmp_path):
    outcomes = Counter()
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        annotations, detections = small(seed % 4)
        (folder / "good").mkdir()
        path, _ = write_case(folder / "good", annotations, detections)
        results = folder / "results.json"
        results.write_bytes(damaged(detections, random.Random(seed)))
        try:
            import_json(results, folder / "shards")
            evaluate(path, folder / "shards")
            export_json(folder / "shards", folder / "out.json")
            json.loads((folder / "out.json").read_text())
            outcomes["evaluated"] += 1
        except DataError as error:
            outcomes["refused"] += str(folder) in str(error)  # it names the file
    assert outcomes.total() == len(seeds)
    assert min(outcomes["evaluated"], outcomes["refused"]) >= len(seeds) / 20, outcomes


@few_and_many
def test_damaged_shards(seeds, tmp_path):
    outcomes = Counter()
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        path, shards = write_case(folder, *small(seed % 4))
        _damage_shard(next(shards.glob("detections-*")), random.Random(seed))
        try:
            evaluate(path, shards, evaluator=("own", "lvis", "hotcoco")[seed % 3])
            outcomes["evaluated"] += 1
        except DataError as error:
            outcomes["refused"] += str(folder) in str(error)  # it names the file
    assert outcomes.total() == len(seeds)
    assert outcomes["refused"] >= len(seeds) / 4, outcomes


def _damage_shard(shard, rng):
    """A column of another type, with nulls or odd values, other metadata, or other bytes."""
    kind = rng.random()
    if kind < 0.2:
        data = bytearray(shard.read_bytes())
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        shard.write_bytes(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]))
        return
    table = pq.read_table(shard)
    metadata = {k: v for k, v in pq.read_metadata(shard).metadata.items() if not k.startswith(b"ARROW")}
    if kind < 0.4:
        key = rng.choice(list(metadata))
        metadata[key] = json.dumps(rng.choice(VALUES)).encode() if rng.random() < 0.8 else b"[" * 50_000
    else:
        name = rng.choice(table.column_names)
        values = table.column(name).to_pylist()
        odd = rng.choice(VALUES)
        for _ in range(rng.choice((1, len(values)))):
            values[rng.randrange(len(values))] = odd
        typed = table.schema.field(name).type
        for wanted in (typed, None, pa.string()):
            try:
                column = pa.array(values, wanted) if wanted != pa.string() else pa.array(map(ascii, values))
                break
            except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
                continue
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table.replace_schema_metadata(metadata), shard)

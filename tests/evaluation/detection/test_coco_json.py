import json

import numpy as np
import pytest
from evaluation_cases import synthetic

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection import coco_json
from cvpods_ext.evaluation.detection.coco_json import export_json, import_json
from cvpods_ext.evaluation.detection.detections import read, shard_files


def by_image(rows):
    grouped = {}
    for row in rows:
        grouped.setdefault(row["image_id"], []).append(row)
    return grouped


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_round_trip_keeps_every_digit_and_the_order_within_images(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(coco_json, "_CHUNK_CHARACTERS", chunk)
    monkeypatch.setattr(coco_json, "_ROWS_AT_ONCE", 13)
    monkeypatch.setattr(coco_json, "_BYTES_PER_SHARD", 5_000)
    _, detections = synthetic(0, images=4, per_image=20)
    detections[0]["score"] = 0.1 + 0.2  # seventeen digits
    source = tmp_path / "results.json"
    source.write_text(json.dumps(detections, indent=chunk == 7))
    assert import_json(source, tmp_path / "shards") == len(detections)
    assert len(shard_files(tmp_path / "shards")) > 1
    assert export_json(tmp_path / "shards", tmp_path / "out.json") == len(detections)
    assert by_image(json.loads((tmp_path / "out.json").read_text())) == by_image(detections)
    assert read(tmp_path / "shards").scores.dtype == np.float64


def test_a_mask_without_box_gets_the_box_of_the_mask(tmp_path):
    _, detections = synthetic(1, images=2, per_image=5)
    kept = [d for d in detections if d["bbox"][2] > 1 and d["bbox"][3] > 1][:1]
    box = kept[0].pop("bbox")
    (tmp_path / "results.json").write_text(json.dumps(kept))
    import_json(tmp_path / "results.json", tmp_path / "shards")
    np.testing.assert_allclose(read(tmp_path / "shards").boxes[0], np.clip(box, 0, 120), atol=1.0)


def test_uncompressed_masks_are_compressed(tmp_path):
    row = {"image_id": 1, "category_id": 2, "score": 0.5, "segmentation": {"size": [3, 4], "counts": [2, 5, 5]}}
    (tmp_path / "results.json").write_text(json.dumps([row]))
    import_json(tmp_path / "results.json", tmp_path / "shards")
    table = read(tmp_path / "shards")
    assert table.rles()[0]["size"] == [3, 4]
    import pycocotools.mask

    assert pycocotools.mask.area(table.rles()[0]) == 5


def test_an_empty_list_is_no_error(tmp_path):
    (tmp_path / "results.json").write_text(" [ ]\n")
    assert import_json(tmp_path / "results.json", tmp_path / "shards") == 0
    assert len(read(tmp_path / "shards")) == 0
    assert export_json(tmp_path / "shards", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text()) == []


GOOD = '{"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [0, 0, 5, 5]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"annotations": []}', "not a list of detections"),
        (f"[{GOOD}, {GOOD[:30]}", "breaks off or is not valid JSON near character 7[0-9]"),
        (f"[{GOOD} {GOOD}]", "a comma is missing"),
        (f"[{GOOD}", "breaks off"),
        ('[{"image_id": 1, "score": 0.5, "bbox": [0, 0, 5, 5]}]', "detection 0: 'category_id' is missing"),
        (f"[{GOOD}, 5]", "detection 1"),
        ('[{"image_id": 1, "category_id": 2, "score": 0.5}]', "neither bbox nor segmentation"),
        ('[{"image_id": 1, "category_id": 2, "score": 0.5, "segmentation": [[1, 2]]}]', "not an RLE"),
        ('[{"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [1, 2]}]', "detection 0"),
    ],
)
def test_broken_results_are_named_and_leave_nothing_behind(content, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        import_json(path, tmp_path / "shards")
    assert str(path) in str(raised.value)
    assert list((tmp_path / "shards").iterdir()) == []


def test_existing_detections_are_not_overwritten(tmp_path):
    (tmp_path / "results.json").write_text(f"[{GOOD}]")
    import_json(tmp_path / "results.json", tmp_path / "shards")
    with pytest.raises(DataError, match="holds detections already"):
        import_json(tmp_path / "results.json", tmp_path / "shards")
    with pytest.raises(DataError, match="is missing"):
        import_json(tmp_path / "absent.json", tmp_path / "other")

import gzip
import json

import numpy as np
import pytest
from evaluation_cases import synthetic

from cvpods_ext.data.annotations import json_stream
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection import coco_json
from cvpods_ext.evaluation.detection.coco_json import export_json, import_json
from cvpods_ext.evaluation.detection.detections import read
from cvpods_ext.evaluation.detection.shards import shard_files


def by_image(rows):
    grouped = {}
    for row in rows:
        grouped.setdefault(row["image_id"], []).append(row)
    return grouped


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_round_trip_keeps_every_digit_and_the_order_within_images(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk)
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


def result(**changes):
    """One detection as the text of a results json; a change to None writes null."""
    mask = {"size": [3, 4], "counts": [2, 5, 5]}
    entry = {"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [0, 0, 5, 5], "segmentation": mask}
    return json.dumps([{**entry, **changes}])


def counts(text, size=(3, 4)):
    return result(segmentation={"size": list(size), "counts": text})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"annotations": []}', "does not hold a list"),
        (f"[{GOOD}, {GOOD[:30]}", "ends in the middle of the data, at character 1[0-9]"),
        (f"[{GOOD} {GOOD}]", "where one of ',]' was expected"),
        (f"[{GOOD}", "ends in the middle"),
        (f"[{GOOD}] []", "more text follows the end of the list"),
        ("[" * 200_000, "nested too deeply"),
        ('[{"image_id": ' + "1" * 5000 + "}]", "not valid JSON"),
        ('[{"image_id": 1, "score": 0.5, "bbox": [0, 0, 5, 5]}]', "detection 0: category_id None is no whole number"),
        (f"[{GOOD}, 5]", "detection 1 is 5"),
        (f"[{GOOD}, null]", "detection 1 is None"),
        ('[{"image_id": 1, "category_id": 2, "score": 0.5}]', "neither bbox nor segmentation"),
        (result(image_id=61.7), r"image_id 61\.7 is no whole number"),
        (result(image_id=2**70), "image_id 1180591620717411303424 is no whole number"),
        (result(category_id=float("inf")), "category_id inf is no whole number"),
        (result(image_id=True), "image_id True is no whole number"),
        (result(score=None), "score None is"),
        (result(score="high"), "score 'high' is text; write it as a number"),
        (result(score="0.61"), r"score '0\.61' is text"),
        (result(score=float("nan")), "score nan is no finite number"),
        (result(score=10**400), "score 1000.* is no finite number"),
        (result(score=97.5), r"score 97\.5 is not in \[0, 1\]; divide percentages by 100"),
        (result(score=-3.2), r"is not in \[0, 1\]"),
        (result(bbox=[1, 2]), r"bbox \[1, 2\] is not four numbers"),
        (result(bbox=[1, 2, float("inf"), 3]), "is not four numbers"),
        (result(bbox=[1, 2, 10**400, 3]), "is not four numbers"),
        (result(bbox=[1, 2, None, 3]), "is not four numbers"),
        (result(bbox="0 0 5 5"), "is not four numbers"),
        (result(bbox=[5, 5, -3, 4]), r"detection 0: bbox \[5, 5, -3, 4\] has a negative side"),
        (result(segmentation=[[1, 2]]), "not an RLE"),
        (result(segmentation="x"), "not an RLE"),
        (counts(5), "RLE counts 5 are not the text"),
        (counts("é"), "are not the text"),
        (counts([1, 2]), "do not fill an image of its size"),
        (counts([1, "a", 11]), "do not fill"),
        (counts("51", (-1, -1)), r"RLE size \[-1, -1\] is not"),
        (counts("51", ("a", "b")), r"RLE size \['a', 'b'\] is not"),
        (counts("51", (10**9, 10**9)), "is not .height, width. of an image"),
        (counts("51"), "the runs of the RLE do not fill an image of its size"),
        (counts("\\x7f"), "do not fill"),
    ],
)
def test_broken_results_are_named_and_leave_nothing_behind(content, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        import_json(path, tmp_path / "shards")
    assert str(path) in str(raised.value)
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_mask_alone_whose_runs_are_wrong_is_refused_before_it_is_measured(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(result(bbox=None, segmentation={"size": [3, 4], "counts": "999"}))
    with pytest.raises(DataError, match="do not fill"):
        import_json(path, tmp_path / "shards")


@pytest.mark.parametrize("start", [b"\xff\xfe[", b'[{"a": "\xe9"}]'])
def test_bytes_that_are_no_text_are_named(start, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(start)
    with pytest.raises(DataError, match="is not text in UTF-8"):
        import_json(path, tmp_path / "shards")


def test_a_byte_order_mark_gzip_and_other_numbers_as_text_are_read(tmp_path):
    text = b"\xef\xbb\xbf" + result(image_id="1", category_id=2.0, score=0.5, bbox=["0", 0, "5.0", 5]).encode()
    (tmp_path / "results.json").write_bytes(gzip.compress(text))
    import_json(tmp_path / "results.json", tmp_path / "shards")
    table = read(tmp_path / "shards")
    assert (table.image_ids.tolist(), table.category_ids.tolist(), table.scores.tolist()) == ([1], [2], [0.5])
    assert table.boxes.tolist() == [[0, 0, 5, 5]]


def test_existing_detections_are_not_overwritten(tmp_path):
    (tmp_path / "results.json").write_text(f"[{GOOD}]")
    import_json(tmp_path / "results.json", tmp_path / "shards")
    with pytest.raises(DataError, match="holds detections already"):
        import_json(tmp_path / "results.json", tmp_path / "shards")
    with pytest.raises(DataError, match="is missing"):
        import_json(tmp_path / "absent.json", tmp_path / "other")

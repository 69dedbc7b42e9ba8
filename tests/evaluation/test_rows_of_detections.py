"""Detections shown at once are those that a test writes and exports, to the last digit."""

import json

import torch

from cvpods_ext.evaluation.detection.coco_json import export_json, result_of
from cvpods_ext.evaluation.detection.shard_writer import ShardWriter, to_rows
from cvpods_ext.structures import Detections


def test_rows_of_detections_equal_the_exported_json_exactly(tmp_path):
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, 2, generator=random, dtype=torch.float64).sort(dim=1).values * 1000
    found = Detections(
        boxes=corners.flatten(1),
        scores=torch.rand(200, generator=random, dtype=torch.float64),
        labels=torch.arange(200) % 3,
        image_id=5,
        size=(9, 9),
        masks=[{"size": [9, 9], "counts": b"19P2"}] * 200,
    )
    category_ids = [2, 7, 11]
    with ShardWriter(tmp_path / "shards", 0, {}) as writer:
        writer.add(found, category_ids)
    export_json(tmp_path / "shards", tmp_path / "all.json")
    shown = [result_of(row) for row in to_rows(found, category_ids).to_pylist()]
    assert shown == json.loads((tmp_path / "all.json").read_text())
    assert len({row["bbox"][2] for row in shown}) == 200  # none was cut to equal digits

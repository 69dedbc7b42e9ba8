import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.errors import DataError, StorageError
from cvpods_ext.evaluation.detection.detections import read
from cvpods_ext.evaluation.detection.shard_writer import ShardWriter
from cvpods_ext.evaluation.detection.shards import completed_image_ids, read_shard_metadata, remove_shards, shard_files
from cvpods_ext.structures import Detections

CATEGORY_IDS = [3, 7, 20]
SETTINGS = {"score_threshold": 0.0001}


def found(image_id, count=3, masks=True, seed=0):
    generator = torch.Generator().manual_seed(seed + image_id)
    corner = torch.rand(count, 2, generator=generator) * 50
    return Detections(
        boxes=torch.cat((corner, corner + 10), dim=1),
        scores=torch.rand(count, generator=generator).sort(descending=True).values,
        labels=torch.randint(0, 3, (count,), generator=generator),
        image_id=image_id,
        size=(60, 80),
        masks=[{"size": [60, 80], "counts": f"mask{image_id}{k}".encode()} for k in range(count)] if masks else None,
    )


def write(folder, image_ids, rank=0, shard_images=500, **kwargs):
    with ShardWriter(folder, rank, SETTINGS, shard_images=shard_images) as writer:
        for image_id in image_ids:
            writer.add(found(image_id, **kwargs), CATEGORY_IDS)


def write_until(error, folder, image_ids, **kwargs):
    """Write, then stop with `error` before the writer is closed."""
    with ShardWriter(folder, 0, SETTINGS, **kwargs) as writer:
        for image_id in image_ids:
            writer.add(found(image_id), CATEGORY_IDS)
        raise error


def rewrite(path, change, metadata=None):
    """Damage a shard: `change` maps its table to another one."""
    table = change(pq.read_table(path))
    pq.write_table(table.replace_schema_metadata(metadata or table.schema.metadata), path)


def test_what_was_added_is_read_back(tmp_path):
    write(tmp_path, [5, 9])
    table = read(tmp_path)
    expected = found(9)
    rows = table.image_ids == 9
    assert rows.sum() == 3
    np.testing.assert_array_equal(table.scores[rows], expected.scores.numpy())
    np.testing.assert_array_equal(table.category_ids[rows], np.array(CATEGORY_IDS)[expected.labels.numpy()])
    np.testing.assert_array_equal(table.boxes[rows, :2], expected.boxes[:, :2].numpy())
    np.testing.assert_array_equal(table.boxes[rows, 2:], (expected.boxes[:, 2:] - expected.boxes[:, :2]).numpy())
    assert table.take(np.flatnonzero(rows)).rles() == expected.masks
    assert table.settings == SETTINGS


def test_shards_of_several_ranks_merge_and_images_without_detections_count_as_done(tmp_path):
    write(tmp_path, [1, 2, 3], rank=0, shard_images=2)
    write(tmp_path, [4], rank=1, count=0)
    write(tmp_path, [50], rank=10)
    assert [path.name for path in shard_files(tmp_path)] == [
        "detections-0-0.parquet",
        "detections-0-1.parquet",
        "detections-1-0.parquet",
        "detections-10-0.parquet",
    ]
    assert completed_image_ids(tmp_path) == {1, 2, 3, 4, 50}
    table = read(tmp_path)
    assert table.image_ids.tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [50] * 3
    assert table.completed.tolist() == [1, 2, 3, 4, 50]
    assert len(table.rles()) == 12


def test_an_interrupted_test_continues_with_new_shards(tmp_path):
    with pytest.raises(RuntimeError):
        write_until(RuntimeError, tmp_path, [1, 2, 3], shard_images=2)
    assert completed_image_ids(tmp_path) == {1, 2}
    write(tmp_path, [3, 4])
    assert completed_image_ids(tmp_path) == {1, 2, 3, 4}
    assert len(shard_files(tmp_path)) == 2


def test_ctrl_c_keeps_the_images_that_are_complete(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_until(KeyboardInterrupt, tmp_path, [1])
    assert completed_image_ids(tmp_path) == {1}


def test_continuing_with_other_settings_is_refused(tmp_path):
    write(tmp_path, [1])
    with pytest.raises(DataError, match=r"other test settings.*0\.05.*Delete"):
        ShardWriter(tmp_path, 1, {"score_threshold": 0.05})
    remove_shards(tmp_path)
    ShardWriter(tmp_path, 1, {"score_threshold": 0.05})


def test_boxes_without_masks_have_no_rle_column(tmp_path):
    write(tmp_path, [1, 2], masks=False)
    table = read(tmp_path)
    assert table.rle_counts is None
    assert len(table) == 6
    assert pq.read_table(shard_files(tmp_path)[0]).column("rle_counts").null_count == 6


def test_masks_may_stay_on_disk(tmp_path):
    write(tmp_path, [1, 2])
    assert read(tmp_path, masks=False).rle_counts is None


def test_a_folder_without_shards_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="pods_test"):
        read(tmp_path)
    assert completed_image_ids(tmp_path) == set()


def test_truncated_shard_is_named(tmp_path):
    write(tmp_path, [1])
    path = shard_files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-20])
    for action in (read, completed_image_ids):
        with pytest.raises(DataError, match=r"detections-0-0\.parquet is not a complete Parquet file.*Delete it"):
            action(tmp_path)


def test_damaged_pages_are_named(tmp_path):
    write(tmp_path, [1], count=200)
    path = shard_files(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"detections-0-0\.parquet cannot be read.*Delete it"):
        read(tmp_path)


def test_image_in_two_shards_is_refused(tmp_path):
    write(tmp_path, [1, 2], rank=0)
    write(tmp_path, [2, 3], rank=1)
    with pytest.raises(DataError, match=r"image 2 is in both .*detections-0-0\.parquet and detections-1-0\.parquet"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("score", np.nan, "row 1 .*score is not finite"),
        ("x", np.inf, "row 1 .*box is not finite"),
        ("w", -1.0, "negative side"),
        ("image_id", 77, "not among the metadata's image_ids"),
    ],
)
def test_bad_values_are_named_with_their_row(column, value, message, tmp_path):
    write(tmp_path, [1])
    path = shard_files(tmp_path)[0]

    def damage(table):
        values = table.column(column).to_numpy().copy()
        values[1] = value
        index = table.schema.get_field_index(column)
        return table.set_column(index, table.schema.field(column), pa.array(values))

    rewrite(path, damage)
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path)
    assert str(path) in str(raised.value)


def test_foreign_parquet_file_is_named(tmp_path):
    write(tmp_path, [1])
    path = shard_files(tmp_path)[0]
    rewrite(path, lambda table: table.drop_columns(["score"]))
    with pytest.raises(DataError, match=r"lacks column score: it was not written"):
        read(tmp_path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="was not written as a detections shard"):
        read_shard_metadata(path)


BAD_COLUMNS = {
    "text": lambda table: table.set_column(table.column_names.index("score"), "score", pa.array(["0.5"] * len(table))),
    "lists": lambda table: table.set_column(table.column_names.index("x"), "x", pa.array([[1.0]] * len(table))),
    "null": lambda table: table.set_column(
        table.column_names.index("w"), "w", pa.array([None] * len(table), pa.float32())
    ),
    "percent": lambda table: table.set_column(
        table.column_names.index("score"), "score", pa.array([55.0] * len(table), pa.float32())
    ),
}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "lacks column score"),
        ("lists", "lacks column x"),
        ("null", "column w has 3 rows without a value"),
        ("percent", r"score is not in \[0, 1\]; divide percentages by 100"),
    ],
)
def test_a_column_of_another_kind_is_named(kind, message, tmp_path):
    write(tmp_path, [1])
    rewrite(shard_files(tmp_path)[0], BAD_COLUMNS[kind])
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("image_ids", ['"abc"', "[[1]]", f"[{2**70}]", "[" * 100_000, "{", "[1.5]", "null", '["1"]'])
def test_metadata_that_names_no_images_is_refused(image_ids, tmp_path):
    write(tmp_path, [1])
    path = shard_files(tmp_path)[0]
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"image_ids": image_ids}), path)
    with pytest.raises(DataError, match="lacks a list image_ids of whole numbers in its metadata"):
        read_shard_metadata(path)


def test_non_finite_detections_are_refused_when_written(tmp_path):
    detections = found(4)
    detections.scores[1] = float("nan")
    with pytest.raises(DataError, match=r"image 4.*diverged"), ShardWriter(tmp_path, 0, SETTINGS) as writer:
        writer.add(detections, CATEGORY_IDS)
    assert shard_files(tmp_path) == []


def test_nothing_half_written_stays_after_a_full_disk(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(StorageError, match="No space"), ShardWriter(tmp_path, 0, SETTINGS) as writer:
        writer.add(found(1), CATEGORY_IDS)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=12), st.integers(1, 5))
def test_any_split_into_shards_and_ranks_reads_the_same(tmp_path_factory, images, shard_images):
    folder = tmp_path_factory.mktemp("shards")
    for rank in range(3):
        with ShardWriter(folder, rank, {}, shard_images=shard_images) as writer:
            for image_id, (count, owner) in enumerate(images):
                if owner == rank:
                    writer.add(found(image_id, count), CATEGORY_IDS)
    assert completed_image_ids(folder) == set(range(len(images)))
    if images:
        table = read(folder)
        expected = {k: found(k, count) for k, (count, _) in enumerate(images)}
        assert len(table) == sum(len(one) for one in expected.values())
        for image_id, one in expected.items():
            rows = table.image_ids == image_id
            np.testing.assert_array_equal(table.scores[rows], one.scores.numpy())
        assert json.loads(pq.read_metadata(shard_files(folder)[0]).metadata[b"settings"]) == {}

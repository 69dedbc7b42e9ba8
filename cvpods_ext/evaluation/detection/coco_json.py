"""Results json of LVIS and COCO, read and written as a stream: other toolkits' files in, submissions out.

A results json is a list of detections, as evaluation servers take it. With images and categories beside that list it
is a COCO data set whose annotations have scores, which FiftyOne and other viewers open.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hotcoco.mask
import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.data.annotations import policy
from cvpods_ext.data.annotations.json_stream import JsonStream
from cvpods_ext.data.annotations.rle import compress, covered_pixels
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection.detections import score_problem
from cvpods_ext.evaluation.detection.shards import (
    BOX_COLUMNS,
    ENTRY,
    completed_image_ids,
    read_shard_metadata,
    shard_files,
    shard_schema,
)
from cvpods_ext.evaluation.shards import shard_metadata
from cvpods_ext.runtime.files import atomic_path, sha256_of

_ROWS_AT_ONCE = 50_000
_BYTES_PER_SHARD = 256 << 20  # of json
_FIELDS = "each needs image_id, category_id, score and bbox [x, y, width, height] or an RLE segmentation"


def open_given(source: Path, folder: Path) -> str:
    """Let `folder` hold the detections of `source`, a results json or a folder of shards; returns their sha256.

    A folder is linked to, a json is turned into shards. What an earlier call made of the same json is kept, so that
    its match tables serve again. DataError if `source` is neither.
    """
    source, folder = Path(source), Path(folder)
    if not source.exists():
        raise DataError(f"--detections {source}: there is no such file or folder")
    if source.is_dir() and not shard_files(source):
        raise DataError(f"--detections {source}: no detections-*.parquet in this folder. Give the json, or its shards.")
    digest = _digest(source)
    if not source.is_dir() and not folder.is_symlink() and _imported_digests(folder) == {digest}:
        return digest
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    if source.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(source.resolve(), target_is_directory=True)
    else:
        import_json(source, folder)
    return digest


def _digest(source: Path) -> str:
    """Of the file, or of the digests of all shards."""
    if source.is_file():
        return sha256_of(source)
    return hashlib.sha256("".join(map(sha256_of, shard_files(source))).encode()).hexdigest()


def _imported_digests(folder: Path) -> set[Any]:
    return {read_shard_metadata(path).settings.get("sha256") for path in shard_files(folder)}


def import_json(results_json: Path, folder: Path) -> int:
    """Turn a results json into shards in an empty `folder`, in bounded memory; returns the number of detections.

    All digits are kept (float64). Every image lands in one shard, with its detections in file order, since ties are
    ranked by it. A detection of a mask only gets the mask's box. Images without detections are not in such files, so
    they are not listed as completed.
    """
    results_json, folder = Path(results_json), Path(folder)
    if shard_files(folder):
        raise DataError(f"{folder} holds detections already. Choose another folder, or delete it first.")
    try:
        num_shards = 1 + results_json.stat().st_size // _BYTES_PER_SHARD
    except FileNotFoundError as error:
        raise DataError(f"{results_json} is missing.") from error
    origin = {"imported_from": results_json.name, "sha256": sha256_of(results_json)}
    shards = [_JsonShard(folder / f"detections-0-{k}.parquet", results_json, origin) for k in range(num_shards)]
    total = 0
    try:
        for position, item in enumerate(JsonStream(results_json).items()):
            row = _row(item, position, results_json)
            shards[row["image_id"] % num_shards].add(row)
            total += 1
        for shard in shards:
            shard.finish()
    except BaseException:
        for shard in shards:
            shard.discard()
        raise
    return total


class _JsonShard:
    """One shard that grows row group by row group and gets its name only when it is complete."""

    def __init__(self, path: Path, source: Path, origin: dict[str, Any]) -> None:
        self._path, self._source, self._origin = path, source, origin
        self._temporary = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = shard_schema(pa.float64()).append(pa.field(ENTRY, pa.int64()))
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._image_ids: dict[int, None] = {}

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._image_ids[row["image_id"]] = None
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        masks = [row for row in self._rows if "rle_counts" in row]
        pixels = covered_pixels([row["rle_counts"] for row in masks]).tolist()
        for row, covered in zip(masks, pixels, strict=True):
            if covered != row["rle_height"] * row["rle_width"]:
                raise DataError(_bad_runs(f"{self._source}, detection {row['entry']}"))
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def finish(self) -> None:
        self._flush()
        self._writer.add_key_value_metadata(shard_metadata(list(self._image_ids), self._origin))
        self._writer.close()
        self._temporary.replace(self._path)

    def discard(self) -> None:
        self._writer.close()
        self._temporary.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


def _row(item: Any, position: int, path: Path) -> dict[str, Any]:
    """A shard row of one result dict, by the rules of `data.annotations.policy`; RLE counts are checked later."""
    where = f"{path}, detection {position}"
    if not isinstance(item, dict):
        raise DataError(f"{where} is {ascii(item)[:80]}; {_FIELDS}")
    row: dict[str, Any] = {"entry": position}
    for name in ("image_id", "category_id"):
        row[name] = policy.whole_number(item.get(name))
        if row[name] is None:
            raise DataError(f"{where}: {name} {ascii(item.get(name))[:80]} is no whole number; {_FIELDS}")
    if isinstance(item.get("score"), str):  # the official evaluators take no such score
        raise DataError(f"{where}: score {ascii(item['score'])[:80]} is text; write it as a number")
    row["score"] = policy.number(item.get("score"))
    if (problem := score_problem(row["score"])) or item.get("score") is None:
        raise DataError(f"{where}: score {ascii(item.get('score'))[:80]} {problem or 'is missing'}")
    mask, box = item.get("segmentation"), item.get("bbox")
    if mask is not None:
        row["rle_counts"], (row["rle_height"], row["rle_width"]) = _counts_and_size(mask, where)
    if box is None or box == []:
        if mask is None:
            raise DataError(f"{where} has neither bbox nor segmentation; {_FIELDS}")
        if covered_pixels([row["rle_counts"]])[0] != row["rle_height"] * row["rle_width"]:
            raise DataError(_bad_runs(where))
        size = [row["rle_height"], row["rle_width"]]
        box = hotcoco.mask.to_bbox({"size": size, "counts": row["rle_counts"]}).tolist()
    sides = [policy.number(side) for side in box] if isinstance(box, list) and len(box) == 4 else [math.nan]
    if not all(abs(side) <= policy.FARTHEST for side in sides):
        raise DataError(
            f"{where}: bbox {ascii(box)[:120]} is not four numbers up to 1e9; boxes are [x, y, width, height]"
        )
    if min(sides[2:]) < 0:
        raise DataError(f"{where}: bbox {ascii(box)[:120]} has a negative side; boxes are [x, y, width, height]")
    return row | dict(zip(BOX_COLUMNS, sides, strict=True))


def _counts_and_size(mask: Any, where: str) -> tuple[bytes, tuple[int, int]]:
    """Compressed counts of an RLE dict; polygons have no frame and are refused."""
    if not isinstance(mask, dict):
        raise DataError(f"{where}: segmentation is not an RLE (official results hold compressed RLE)")
    size, counts = mask.get("size"), mask.get("counts")
    if isinstance(counts, list):
        found = compress(mask)
        if found is None:
            raise DataError(_bad_runs(where))
        return found
    sides = [policy.whole_number(side) or 0 for side in size] if isinstance(size, list) else []
    if (
        len(sides) != 2
        or min(sides) < 1
        or max(sides) > policy.LONGEST_SIDE
        or sides[0] * sides[1] > policy.MOST_PIXELS
    ):
        raise DataError(f"{where}: RLE size {ascii(size)[:80]} is not [height, width] of an image")
    if not isinstance(counts, str) or not counts.isascii():
        raise DataError(f"{where}: RLE counts {ascii(counts)[:80]} are not the text that the COCO tools write")
    return counts.encode("ascii"), (sides[0], sides[1])


def _bad_runs(where: str) -> str:
    return f"{where}: the runs of the RLE do not fill an image of its size; write masks with the COCO tools"


def export_json(folder: Path, out: Path) -> int:
    """Write all shards of `folder` as one results json in the official layout; returns the number of detections."""
    total = 0
    with atomic_path(out) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write("[")
        for result in _results(folder):
            file.write((",\n" if total else "\n") + json.dumps(result))
            total += 1
        file.write("\n]\n")
    return total


def export_dataset(
    folder: Path, out: Path, images: Sequence[dict[str, Any]], categories: Sequence[dict[str, Any]]
) -> int:
    """Write all shards of `folder` as a COCO data set with scores; returns the number of detections.

    `images` are records with id, file_name, height and width, `categories` with id and name.
    """
    total = 0
    with atomic_path(out) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write(f'{{"images": {json.dumps(list(images))},\n"categories": {json.dumps(list(categories))},\n')
        file.write('"annotations": [')
        for result in _results(folder):
            width, height = result["bbox"][2:]
            record = {"id": total + 1, **result, "area": width * height, "iscrowd": 0}
            file.write((",\n" if total else "\n") + json.dumps(record))
            total += 1
        file.write("\n]}\n")
    return total


def _results(folder: Path) -> Iterator[dict[str, Any]]:
    """Result dicts of all shards, in bounded memory."""
    completed_image_ids(folder)
    files = shard_files(folder)
    if not files:
        raise DataError(f"no detections-*.parquet in {folder}. Run pods_test first.")
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE):
            yield from map(result_of, batch.to_pylist())


def result_of(row: dict[str, Any]) -> dict[str, Any]:
    """One row of a shard as an entry of a results json."""
    result = {
        "image_id": row["image_id"],
        "category_id": row["category_id"],
        "bbox": [row[name] for name in BOX_COLUMNS],
        "score": row["score"],
    }
    if row["rle_counts"] is not None:
        size = [row["rle_height"], row["rle_width"]]
        result["segmentation"] = {"size": size, "counts": row["rle_counts"].decode("ascii")}
    return result

"""Results json of LVIS and COCO, read and written as a stream: other toolkits' files in, submissions out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hotcoco.mask
import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation import detections
from cvpods_ext.evaluation.detections import BOX_COLUMNS, shard_files, shard_metadata, shard_schema
from cvpods_ext.runtime.files import atomic_path

_CHUNK_CHARACTERS = 1 << 20
_LONGEST_ITEM = 1 << 24  # characters; more without an end means that the file is broken
_ROWS_AT_ONCE = 50_000
_BYTES_PER_SHARD = 256 << 20  # of json


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
    shards = [_JsonShard(folder / f"detections-0-{k}.parquet", results_json) for k in range(num_shards)]
    total = 0
    try:
        for position, item in enumerate(_stream(results_json)):
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

    def __init__(self, path: Path, source: Path) -> None:
        self._path, self._source = path, source
        self._temporary = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = shard_schema(pa.float64())
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._image_ids: dict[int, None] = {}

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._image_ids[row["image_id"]] = None
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def finish(self) -> None:
        self._flush()
        settings = {"imported_from": self._source.name}
        self._writer.add_key_value_metadata(shard_metadata(list(self._image_ids), settings))
        self._writer.close()
        self._temporary.replace(self._path)

    def discard(self) -> None:
        self._writer.close()
        self._temporary.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


def _stream(path: Path) -> Iterator[Any]:
    """The elements of a json list, one at a time; anything else is a DataError with the character where it broke."""
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8") as file:
        buffer, consumed, at = file.read(_CHUNK_CHARACTERS).lstrip(), 0, 1
        if not buffer.startswith("["):
            raise DataError(f"{path} is not a list of detections (it starts with {buffer[:40]!r}).")
        expect_item = True  # else a comma or the end
        while True:
            while at < len(buffer) and (buffer[at].isspace() or (buffer[at] == "," and not expect_item)):
                expect_item = expect_item or buffer[at] == ","
                at += 1
            if buffer[at : at + 1] == "]":
                return
            try:
                if not expect_item:
                    raise ValueError("a comma is missing")
                item, at = decoder.raw_decode(buffer, at)
            except ValueError as error:
                more = file.read(_CHUNK_CHARACTERS)
                if not more or len(buffer) - at > _LONGEST_ITEM:
                    where = consumed + at
                    raise DataError(
                        f"{path} breaks off or is not valid JSON near character {where} ({error}). Download it again."
                    ) from error
                consumed, buffer, at = consumed + at, buffer[at:] + more, 0
                continue
            expect_item = False
            yield item


def _row(item: Any, position: int, path: Path) -> dict[str, Any]:
    """A shard row of one result dict."""
    try:
        row: dict[str, Any] = {
            "image_id": int(item["image_id"]),
            "category_id": int(item["category_id"]),
            "score": float(item["score"]),
        }
        box, mask = item.get("bbox"), item.get("segmentation")
        if mask is not None:
            mask = _compressed(mask)
            row["rle_counts"], (row["rle_height"], row["rle_width"]) = mask["counts"], mask["size"]
        if not box:
            if mask is None:
                raise ValueError("neither bbox nor segmentation")
            box = hotcoco.mask.to_bbox(mask)
        x, y, w, h = (float(value) for value in box)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path}, detection {position}: {detail}. Each needs image_id, category_id, score and "
            "bbox [x, y, width, height] or an RLE segmentation."
        ) from error
    return {**row, "x": x, "y": y, "w": w, "h": h}


def _compressed(mask: Any) -> dict[str, Any]:
    """An RLE dict with compressed counts as bytes; polygons have no frame and are refused."""
    if not isinstance(mask, dict):
        raise ValueError("segmentation is not an RLE (official results hold compressed RLE)")
    height, width = mask["size"]
    counts = mask["counts"]
    if isinstance(counts, list):
        counts = hotcoco.mask.fr_py_objects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def export_json(folder: Path, out: Path) -> int:
    """Write all shards of `folder` as one results json in the official layout; returns the number of detections."""
    detections.completed_image_ids(folder)
    files = shard_files(folder)
    if not files:
        raise DataError(f"no detections-*.parquet in {folder}. Run pods_test first.")
    total = 0
    with atomic_path(out) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write("[")
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    file.write((",\n" if total else "\n") + json.dumps(_result(row)))
                    total += 1
        file.write("\n]\n")
    return total


def _result(row: dict[str, Any]) -> dict[str, Any]:
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

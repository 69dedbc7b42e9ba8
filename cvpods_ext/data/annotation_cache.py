"""From an annotation json to its Arrow file, once: where the file is kept and how a later start finds it.

A cache file is named after the sha256 of the json. A small key file per json remembers size and modification time,
so that a later start does not read the json at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from cvpods_ext.data import annotation_writer as writer
from cvpods_ext.data.annotation_columns import AnnotationColumns
from cvpods_ext.data.image_columns import ImageColumns, read_categories
from cvpods_ext.data.json_stream import JsonStream
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import atomic_path, sha256_of, write_json
from cvpods_ext.runtime.progress import progress_bar

FORMAT = 1  # of the Arrow file; raise it when SCHEMA or a check changes
logger = logging.getLogger(__name__)


def cached(json_path: Path) -> Path:
    """The Arrow file of `json_path`, made if there is none for its present content."""
    if not json_path.is_file():
        raise DataError(
            f"annotation file {json_path} does not exist; `pods_data doctor` says where to get it, "
            "or set PODS_DATASETS to your data root"
        )
    folder = _cache_folder(json_path)
    key_file = folder / f"{json_path.stem}-{hashlib.sha256(str(json_path.resolve()).encode()).hexdigest()[:8]}.key.json"
    status = json_path.stat()
    key = {"format": FORMAT, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    remembered = _read_key(key_file)
    arrow = folder / f"{json_path.stem}-{remembered.get('sha256', '')[:16]}-{FORMAT}.arrow"
    if all(remembered.get(name) == value for name, value in key.items()) and arrow.is_file():
        return arrow
    # Content decides: a copied or touched json has another time but the same annotations.
    digest = sha256_of(json_path) if any(folder.glob(f"{json_path.stem}-*-{FORMAT}.arrow")) else ""
    arrow = folder / f"{json_path.stem}-{digest[:16]}-{FORMAT}.arrow"
    if not digest or not arrow.is_file():
        arrow, digest = build(json_path, folder)
    write_json(key_file, {**key, "sha256": digest, "json": str(json_path)})
    return arrow


def _read_key(key_file: Path) -> dict[str, object]:
    try:
        return json.loads(key_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _cache_folder(json_path: Path) -> Path:
    """PODS_CACHE, else .cache beside the json if that can be written, else ~/.cache/cvpods_ext."""
    configured = os.environ.get("PODS_CACHE")
    candidates = [Path(configured).expanduser()] if configured else [json_path.parent / ".cache"]
    candidates.append(Path.home() / ".cache" / "cvpods_ext")
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise DataError(f"no folder for the annotation cache can be written ({candidates}); set PODS_CACHE to one that can")


def build(json_path: Path, folder: Path) -> tuple[Path, str]:
    """Parse the json into `folder`; the Arrow file and the sha256 of the json."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".parsing-") as scratch:
        images, annotations, entries, digest = _first_pass(json_path, Path(scratch))
        categories = read_categories(entries, json_path)
        writer.require(json_path, images, categories)
        columns = annotations.read()
        checked = writer.check(columns, images, np.array([c.id for c in categories], np.int64))
        arrow = folder / f"{json_path.stem}-{digest[:16]}-{FORMAT}.arrow"
        noted = dict(checked.noted)
        if annotations.rings_dropped:
            noted["polygon left out of an annotation that has others"] = annotations.rings_dropped
        facts = {
            "json": json_path.name,
            "sha256": digest,
            "federated": images.federated,
            "images_dropped": images.dropped,
            "annotations": len(columns["id"]),
            "dropped": checked.dropped,
            "noted": noted,
        }
        if checked.dropped:
            with atomic_path(arrow.with_suffix(".dropped.csv")) as temporary:
                writer.write_dropped(temporary, columns, checked)
        with atomic_path(arrow) as temporary:
            writer.write(temporary, columns, images, categories, checked, facts)
    logger.info("parsed %s in %.1f s into %s", json_path.name, time.perf_counter() - began, arrow)
    return arrow, digest


def _first_pass(json_path: Path, scratch: Path) -> tuple[ImageColumns, AnnotationColumns, list, str]:
    images, annotations, entries = ImageColumns(), AnnotationColumns(scratch), []
    sinks = {"images": images.add, "annotations": annotations.add, "categories": entries.append}
    total_mb = max(1, json_path.stat().st_size >> 20)
    with progress_bar() as bar:
        task = bar.add_task(f"reading {json_path.name} (MB)", total=total_mb, note="")
        stream = JsonStream(json_path, lambda count: bar.advance(task, count / (1 << 20)))
        for key, value in stream.items():
            if key in sinks:
                sinks[key](value)
    return images, annotations, entries, stream.sha256

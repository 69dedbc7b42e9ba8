"""From an annotation json to its Arrow file, once: where the file is kept and how a later start finds it.

A cache file is named after the sha256 of the json. A small key file per json remembers size and modification time,
so that a later start does not read the json at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cvpods_ext.data.annotations import parse
from cvpods_ext.data.annotations.check import check, facts_of
from cvpods_ext.data.annotations.columns import AnnotationColumns
from cvpods_ext.data.annotations.image_columns import ImageColumns, read_categories
from cvpods_ext.data.annotations.json_stream import JsonStream
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import atomic_path, sha256_of, write_json, writing
from cvpods_ext.runtime.progress import progress_bar

FORMAT = 4  # of the Arrow file; raise it when its schema, a check or `policy` changes
_ROOM = "Make room (parsing needs about as much as the json), or set PODS_CACHE to a folder that has it"
logger = logging.getLogger(__name__)


def cached(json_path: Path) -> Path:
    """The Arrow file of `json_path`, made if there is none for its present content.

    Processes that ask at the same time wait for the first one instead of parsing again.
    """
    if not json_path.is_file():
        raise DataError(
            f"annotation file {json_path} does not exist; `pods_data doctor` says where to get it, "
            "or set PODS_DATASETS to your data root"
        )
    folder = cache_folder(json_path)
    place = hashlib.sha256(str(json_path.resolve()).encode()).hexdigest()[:8]
    key_file = folder / f"{json_path.stem}-{place}.key.json"
    arrow = _remembered(key_file, json_path)
    if arrow is None:
        with _locked(key_file.with_suffix(".lock")):
            arrow = _remembered(key_file, json_path) or _by_content(key_file, json_path)
    return arrow


def _key(json_path: Path) -> dict[str, int]:
    """What tells an unchanged json without reading it."""
    status = json_path.stat()
    return {"format": FORMAT, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _remembered(key_file: Path, json_path: Path) -> Path | None:
    """The Arrow file that the key file names, if it is for the json as it is now."""
    try:
        remembered = json.loads(key_file.read_text(encoding="utf-8"))
        digest = remembered.pop("sha256")
        arrow = _arrow_file(key_file.parent, json_path, digest)
        return arrow if remembered == _key(json_path) and arrow.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _by_content(key_file: Path, json_path: Path) -> Path:
    """Content decides: a json that was only copied or touched is not parsed again."""
    folder, key = key_file.parent, _key(json_path)
    digest = sha256_of(json_path) if any(folder.glob(f"{json_path.stem}-*-{FORMAT}.arrow")) else None
    if digest is None or not _arrow_file(folder, json_path, digest).is_file():
        digest = build(json_path, folder)
    write_json(key_file, {**key, "sha256": digest})
    return _arrow_file(folder, json_path, digest)


def _arrow_file(folder: Path, json_path: Path, digest: str) -> Path:
    return folder / f"{json_path.stem}-{digest[:16]}-{FORMAT}.arrow"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock; where the file system has none, processes parse side by side, which is only slower."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            logger.info("%s cannot be locked; several processes may parse at once", path)
        yield


def cache_folder(json_path: Path) -> Path:
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


def build(json_path: Path, folder: Path) -> str:
    """Parse the json into an Arrow file in `folder`; returns the sha256 of the json."""
    began = time.perf_counter()
    with writing(folder, _ROOM), tempfile.TemporaryDirectory(dir=folder, prefix=".parsing-") as scratch:
        images, annotations, entries, digest = _first_pass(json_path, Path(scratch))
        categories = read_categories(entries, json_path)
        parse.require(json_path, images, categories)
        columns = annotations.read()
        checked = check(columns, images, np.array([c.id for c in categories], np.int64))
        arrow = _arrow_file(folder, json_path, digest)
        facts = {
            "json": json_path.name,
            "sha256": digest,
            "federated": images.federated,
            "images_dropped": images.dropped,
            "images_nameless": images.nameless,
            "name_outside": images.outside,
            **facts_of(checked, columns),
            "noted": {**checked.noted, **{kind: count for kind, count in annotations.noted.items() if count}},
        }
        if facts["dropped"]:
            with atomic_path(arrow.with_suffix(".dropped.csv")) as temporary:
                parse.write_dropped(temporary, columns, checked)
        with atomic_path(arrow) as temporary:
            parse.write(temporary, columns, images, categories, checked, facts)
    logger.info("parsed %s in %.1f s into %s", json_path.name, time.perf_counter() - began, arrow)
    return digest


def _first_pass(json_path: Path, scratch: Path) -> tuple[ImageColumns, AnnotationColumns, list, str]:
    images, annotations, entries = ImageColumns(json_path), AnnotationColumns(scratch), []
    sinks = {"images": images.add, "annotations": annotations.add, "categories": entries.append}
    total_mb = max(1, json_path.stat().st_size >> 20)
    with progress_bar() as bar:
        task = bar.add_task(f"reading {json_path.name} (MB)", total=total_mb, note="")
        stream = JsonStream(json_path, lambda count: bar.advance(task, count / (1 << 20)))
        for key, value in stream.elements(sinks):
            sinks[key](value)
    return images, annotations, entries, stream.sha256

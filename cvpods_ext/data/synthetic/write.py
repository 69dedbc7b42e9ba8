"""LVIS in a box: a complete data root with the long tail and the federated labels of LVIS, made in seconds.

Every class is a shape, a colour and a texture, so that small networks learn it and rare classes share all their
attributes with frequent ones. What follows LVIS: the shape of the counts of images per class, the sizes of the rare,
common and frequent groups, classes per image, instances per class and image, verified negatives, and the share of
images in which a class is not exhaustively annotated (some of its instances are drawn but not annotated). What does
not: images are small by default, so objects are larger in them and fewer; and the validation split is flatter than
the training split, because a rare class with one validation instance measures luck (`val_flatness=0` gives the tail
of LVIS and its noise).
"""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from cvpods_ext.data.synthetic.classes import ClassCode, choose_codes
from cvpods_ext.data.synthetic.draw import DrawnObject, draw_image, room_for_objects, signed_area
from cvpods_ext.data.synthetic.plan import (
    LOG_SPREAD,
    ImagePlan,
    frequency_groups,
    frequency_thresholds,
    image_counts,
    plan_images,
)
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.runtime.files import atomic_path, write_json, write_text, writing
from cvpods_ext.runtime.progress import track

# `.invalid` never resolves; as long as the prefix that tools cut off a real coco_url.
URL_PREFIX = "http://synthetic-data.invalid/"
ASPECTS = ((1.0, 0.75), (0.75, 1.0), (1.0, 1.0), (1.0, 0.66))  # (width, height) of the longer side
ASPECT_SHARES = (0.5, 0.22, 0.14, 0.14)
SMALLEST_IMAGE = 48
JPEG_QUALITY = 92
UNFINISHED = ".synthetic-unfinished"  # beside the images while they are being drawn
FORMAT = 1  # raised when the same options would draw other pictures


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """Everything that determines a synthetic set, recorded in its json files.

    `image_size` is the longer side in pixels. `spread` is the standard deviation of ln(training images per class),
    2.162 in LVIS v1; `min_images` the least of a class. `val_flatness` in [0, 1] interpolates the validation counts
    from the training tail (0) to equal counts (1). `difficulty` in [0, 1] weakens textures, shifts colours, adds
    noise. `name` goes into the file names lvis_<name>_train.json, lvis_<name>_val.json, num_shots_<name>.json.
    """

    images_train: int = 1500
    images_val: int = 400
    num_classes: int = 40
    image_size: int = 96
    seed: int = 0
    spread: float = LOG_SPREAD
    min_images: int = 1
    val_flatness: float = 0.75
    difficulty: float = 0.4
    name: str = "box"

    def __post_init__(self) -> None:
        if min(self.images_train, self.images_val, self.min_images) < 1:
            raise ConfigError("a synthetic set needs at least one training image, validation image and image per class")
        if self.image_size < SMALLEST_IMAGE:
            raise ConfigError(f"image_size={self.image_size} leaves no room for objects; use {SMALLEST_IMAGE} or more")
        if not (0 <= self.val_flatness <= 1 and 0 <= self.difficulty <= 1 and self.spread >= 0):
            raise ConfigError("val_flatness and difficulty lie in [0, 1], and spread is not negative")


@dataclass(frozen=True)
class SyntheticFiles:
    """Where a generated set lies."""

    root: Path
    train: Path
    val: Path
    num_shots: Path


def generate(root: str | Path, *, workers: int = 0, **options: Any) -> SyntheticFiles:
    """Write a complete data root below `root`: JPEGs, LVIS v1 json files for train and val, class counts.

    The same `options` (fields of SyntheticOptions) give the same bytes, with any number of `workers` (processes that
    draw; 0 draws in this one). A root that already holds this very set is left as it is; DataError if it holds
    anything else under the same names. The json files are written last, so their presence says that all is there.
    """
    settings = SyntheticOptions(**options)
    files = _files(Path(root), settings)
    if _is_complete(files, settings):
        return files
    rng = np.random.default_rng([settings.seed, FORMAT])
    by_popularity = choose_codes(settings.num_classes, rng)
    codes = sorted(by_popularity, key=lambda code: code.name)  # the order of category ids, as in LVIS
    label_of = {code: label for label, code in enumerate(codes)}
    labels_by_popularity = np.array([label_of[code] for code in by_popularity])
    scene_of_class = rng.integers(max(2, settings.num_classes // 10), size=settings.num_classes)
    marker = files.root / "coco" / UNFINISHED
    write_text(marker, _recipe(settings))
    written = {}
    for split, count, first_id in (
        ("train", settings.images_train, 1),
        ("val", settings.images_val, settings.images_train + 1),
    ):
        sizes = _sizes(rng, count, settings.image_size)
        room = np.array([room_for_objects(height, width) for height, width in sizes])
        flatness = settings.val_flatness if split == "val" else 0.0
        counts = np.zeros(settings.num_classes, dtype=np.int64)
        counts[labels_by_popularity] = image_counts(
            settings.num_classes, count, int(room.mean()), settings.spread * (1 - flatness), settings.min_images
        )
        plans = plan_images(rng, counts, scene_of_class, count, room)
        tasks = [_Task(first_id + k, split, sizes[k], plan, settings) for k, plan in enumerate(plans)]
        written[split] = _draw_all(files.root, tasks, codes, workers)
    categories, thresholds = _categories(codes, written["train"])
    info = _info(settings, thresholds)
    write_json(files.num_shots, [number for row in categories for number in (row["id"], row["image_count"])])
    for split, path in (("val", files.val), ("train", files.train)):
        _write_lvis_json(path, info, written[split], categories)
    marker.unlink()
    return files


@dataclass(frozen=True)
class _Task:
    """One image to draw; its random numbers depend on nothing but the seed and its id."""

    image_id: int
    split: str
    size: tuple[int, int]
    plan: ImagePlan
    settings: SyntheticOptions

    @property
    def path(self) -> str:
        """Below the root, as in COCO."""
        return f"{self.split}2017/{self.image_id:012d}.jpg"


@dataclass(frozen=True)
class _Written:
    """What a drawn image contributes to the json."""

    image: dict[str, Any]
    objects: list[DrawnObject]


def _files(root: Path, settings: SyntheticOptions) -> SyntheticFiles:
    lvis = root / "lvis"
    return SyntheticFiles(
        root=root,
        train=lvis / f"lvis_{settings.name}_train.json",
        val=lvis / f"lvis_{settings.name}_val.json",
        num_shots=lvis / f"num_shots_{settings.name}.json",
    )


def _recipe(settings: SyntheticOptions) -> str:
    """What the unfinished set will be, so that only the same command goes on with it."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(settings)})


def _is_complete(files: SyntheticFiles, settings: SyntheticOptions) -> bool:
    """Whether this very set is already there; DataError when its place is taken by something else."""
    remedy = "give another folder, or delete what is there first"
    jpegs = [files.root / "coco" / f"{split}2017" for split in ("train", "val")]
    if not files.train.exists():  # written after val and the images
        taken = next((path for folder in jpegs for path in sorted(folder.glob("*"))[:1]), None)
        marker = files.root / "coco" / UNFINISHED
        if taken is not None and not (marker.exists() and marker.read_text(encoding="utf-8") == _recipe(settings)):
            raise DataError(f"{taken} does not belong to this synthetic set and would be mixed with it; {remedy}")
        return False
    try:
        info = json.loads(files.train.read_text(encoding="utf-8"))["info"]
    except (ValueError, KeyError, TypeError):
        info = {}
    if info.get("options") != dataclasses.asdict(settings) or info.get("format") != FORMAT:
        raise DataError(f"{files.train} was not made with the same options; {remedy}")
    counts = [sum(1 for _ in folder.glob("*.jpg")) for folder in jpegs]
    if counts != [settings.images_train, settings.images_val] or not (files.val.exists() and files.num_shots.exists()):
        raise DataError(f"{files.root} has lost some of its files since it was generated; {remedy}")
    return True


def _sizes(rng: np.random.Generator, count: int, longer: int) -> list[tuple[int, int]]:
    """(height, width) of each image, mostly 4:3 and wide as in COCO."""
    kinds = rng.choice(len(ASPECTS), size=count, p=ASPECT_SHARES)
    return [(round(longer * ASPECTS[kind][1]), round(longer * ASPECTS[kind][0])) for kind in kinds]


def _draw_all(root: Path, tasks: list[_Task], codes: list[ClassCode], workers: int) -> list[_Written]:
    """Draw and save all images of a split, in `workers` processes if any."""
    folder = root / "coco" / f"{tasks[0].split}2017"
    folder.mkdir(parents=True, exist_ok=True)
    draw = partial(_draw_one, root / "coco", codes)
    label = f"drawing {tasks[0].split}"
    if workers == 0:
        return list(track(map(draw, tasks), label, total=len(tasks)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(track(pool.map(draw, tasks, chunksize=16), label, total=len(tasks)))


def _draw_one(coco: Path, codes: list[ClassCode], task: _Task) -> _Written:
    plan = task.plan
    rng = np.random.default_rng([task.settings.seed, FORMAT, task.image_id])
    # one object of every class first, so that no class of the plan is crowded out by the repetitions of another
    labels = [*rng.permutation(plan.labels).tolist()]
    labels += rng.permutation(np.repeat(plan.labels, plan.instances - 1)).tolist()
    labels += plan.not_exhaustive.tolist()  # drawn, but not annotated
    picture, objects = draw_image(rng, task.size, labels, codes, plan.scene, task.settings.difficulty)
    with writing(coco / task.path):
        picture.save(coco / task.path, quality=JPEG_QUALITY)
    annotated = objects[: len(objects) - len(plan.not_exhaustive)]
    kept = [one for one in annotated if one is not None]
    shown = {one.label for one in kept}
    image = {
        "id": task.image_id,
        "coco_url": URL_PREFIX + task.path,
        "height": task.size[0],
        "width": task.size[1],
        "neg_category_ids": [int(label) + 1 for label in plan.negatives],
        "not_exhaustive_category_ids": [int(label) + 1 for label in plan.not_exhaustive if label in shown],
    }
    return _Written(image, kept)


def _categories(codes: list[ClassCode], train: list[_Written]) -> tuple[list[dict[str, Any]], tuple[int, int]]:
    """Category rows with the counts of what was drawn, and the (rare, common) thresholds of the groups."""
    instances = np.zeros(len(codes), dtype=np.int64)
    images = np.zeros(len(codes), dtype=np.int64)
    for one in train:
        labels = np.array([drawn.label for drawn in one.objects], dtype=np.int64)
        np.add.at(instances, labels, 1)
        images[np.unique(labels)] += 1
    thresholds = frequency_thresholds(images)
    groups = frequency_groups(images, thresholds)
    rows = [
        {
            "id": label + 1,
            "name": code.name,
            "synset": f"{code.name}.n.01",
            "synonyms": [code.name],
            "def": f"a {code.name.replace('_', ' ')}",
            "frequency": groups[label],
            "image_count": int(images[label]),
            "instance_count": int(instances[label]),
        }
        for label, code in enumerate(codes)
    ]
    return rows, thresholds


def _info(settings: SyntheticOptions, thresholds: tuple[int, int]) -> dict[str, Any]:
    rare, common = thresholds
    return {
        "description": "synthetic long-tailed set: shape x colour x texture",
        "format": FORMAT,
        "options": dataclasses.asdict(settings),
        "frequency_thresholds": {"rare_max_images": rare, "common_max_images": common},
        "num_shots": "images per class of the training split",
    }


def _write_lvis_json(
    path: Path, info: dict[str, Any], written: list[_Written], categories: list[dict[str, Any]]
) -> None:
    """LVIS v1 layout; annotation ids start at 1, since the official evaluator takes a match with id 0 for none."""
    annotations: list[dict[str, Any]] = []
    for one in written:
        for drawn in one.objects:
            annotations.append(_annotation(len(annotations) + 1, one.image["id"], drawn))
    document = {
        "info": info,
        "licenses": [],
        "images": [one.image for one in written],
        "annotations": annotations,
        "categories": categories,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False), encoding="utf-8")


def _annotation(identity: int, image_id: int, drawn: DrawnObject) -> dict[str, Any]:
    """Box and area follow from the polygons."""
    rings = [np.array(polygon).reshape(-1, 2) for polygon in drawn.polygons]
    points = np.concatenate(rings)
    low, high = points.min(axis=0), points.max(axis=0)
    area = sum(abs(signed_area(ring)) for ring in rings)
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": drawn.label + 1,
        "bbox": [round(float(value), 2) for value in (*low, *(high - low))],
        "area": round(area, 2),
        "segmentation": drawn.polygons,
    }

"""The recorded data pipeline and metric of the reference segmentor, beside ours; see upernet_parity.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity import EQUAL, Row, compare
from torch import Tensor

from cvpods_ext.data import segmentation_transforms as transforms
from cvpods_ext.evaluation.segmentation.counts import IGNORE, Areas, count
from cvpods_ext.evaluation.segmentation.metrics import iou_and_accuracy, summarise
from cvpods_ext.modeling.segmentation.inference import TestScales
from cvpods_ext.modeling.weights.resample import resample
from cvpods_ext.structures.pixels import keep_ratio_size, resize_bilinear, resize_nearest
from cvpods_ext.structures.segmentation import LabelMap

METRIC = 1e-9
VECTOR = 32  # columns at once in OpenCV; what is left of a row it rounds where it otherwise cuts off
IMAGENET = (np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375]))


class Replay:
    """Stands in for a random generator and gives the recorded draws, in their order; the bounds must agree."""

    def __init__(self, draws: Sequence[Sequence[Any]]) -> None:
        self.draws = list(draws)

    def _next(self, names: tuple[str, ...], bounds: tuple) -> Any:
        name, recorded, value = self.draws.pop(0)
        assert name in names, f"{names} drawn where {name} was recorded"
        assert list(bounds) == recorded, f"{name} within {bounds}, recorded {recorded}"
        return value

    def integers(self, *bounds: int) -> int:
        """As `np.random.Generator.integers`."""
        return self._next(("randint",), bounds)

    def uniform(self, *bounds: float) -> float:
        """As `np.random.Generator.uniform`."""
        return self._next(("uniform",), bounds)

    def random(self) -> float:
        """As `np.random.Generator.random`."""
        return self._next(("random_sample", "rand"), ())


def rgb(bgr: np.ndarray) -> np.ndarray:
    """(H, W, 3) BGR as recorded -> (3, H, W) RGB."""
    return np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))


def pipeline_rows(folder: Path) -> Iterator[Row]:
    """Sizes, pixels, crops, colours and whole training samples."""
    record, meta = np.load(folder / "pipeline.npz"), json.loads((folder / "pipeline.json").read_text())
    yield from size_rows(meta)
    yield from resize_rows(record)
    yield from crop_rows(record, meta)
    yield from colour_rows(record, meta["photometric"])
    for case in meta["train_pipeline"]["cases"]:
        yield from sample_rows(record, meta["train_pipeline"], case)
    for side in (8, 32):
        table = resample("pos_embed", torch.from_numpy(record["pos_embed_14"]), torch.Size((1, side**2 + 1, 32)))
        assert table is not None
        kept = table if side == 8 else table[0, ::37]
        yield compare(f"pos_embed_{side}", kept, record["pos_embed_8" if side == 8 else "pos_embed_32_rows_every37"])


def size_rows(meta: dict[str, Any]) -> Iterator[Row]:
    """Sizes after resizing, for one scale and for several."""
    rows = np.array(meta["resize_keep_ratio_sizes"]["rows"])
    ours = [keep_ratio_size((h, w), short=short, long=long) for h, w, long, short in rows[:, :4].tolist()]
    yield compare("resize_keep_ratio_sizes", torch.tensor(ours), rows[:, 4:])
    recorded = meta["multi_scale_test_sizes"]["rows"]
    ours = []
    for crop, h, w, ratio, _, _ in recorded:
        (size,) = TestScales(short=crop, crop=crop, stride=crop, ratios=(ratio,), flip=True).sizes((h, w))
        ours.append(size)
    # A test of one ratio alone is a test of one scale where that ratio is 1, which bounds the longer side as well.
    several = [i for i, row in enumerate(recorded) if row[3] != 1]
    theirs = np.array([row[4:] for row in recorded])
    yield compare("multi_scale_test_sizes", torch.tensor(ours)[several], theirs[several])


def resize_rows(record: Any) -> Iterator[Row]:
    """Resized pixels and labels."""
    image, labels = torch.from_numpy(rgb(record["base_bgr"])), torch.from_numpy(record["base_seg"])
    for name in ("resize0", "resize1"):
        size = record[f"{name}_seg"].shape
        yield compare(f"{name}_bgr", resize_bilinear(image, size), rgb(record[f"{name}_bgr"]))
        yield compare(f"{name}_seg", resize_nearest(labels, size), record[f"{name}_seg"])


def crop_rows(record: Any, meta: dict[str, Any]) -> Iterator[Row]:
    """Offsets tried until a crop is accepted (forty runs), and an image of a single class."""
    labels = torch.from_numpy(record["crop_source_seg"])
    height, width = meta["random_crop"]["crop"]
    # Ours are square: rows and columns are cut with the recorded sides through the same acceptance rule.
    rule = transforms.RandomCrop(height, meta["random_crop"]["cat_max_ratio"])
    wrong = 0
    for case in meta["random_crop"]["cases"]:
        offsets = case["offsets_yx"]
        accepted = [rule.is_varied(labels[y : y + height, x : x + width]) for y, x in offsets]
        stops = accepted[:-1] == [False] * (len(offsets) - 1) and (accepted[-1] or len(offsets) == rule.attempts + 1)
        wrong += not stops
    yield compare("random_crop: runs that stop elsewhere", torch.tensor(wrong), np.array(0))
    draws = [["randint", [0, 50], y] for y, _ in meta["random_crop_single_class"]["offsets_yx"]]
    replay: Any = Replay([each for draw in draws for each in (draw, draw)])
    single = LabelMap(torch.zeros((97, 97), dtype=torch.uint8), 0, (97, 97), (97, 97))
    transforms.RandomCrop(48)(torch.zeros((3, 97, 97), dtype=torch.uint8), single, replay)
    yield compare("random_crop_single_class: draws left", torch.tensor(len(replay.draws)), np.array(0))


def colour_rows(record: Any, cases: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Single operations and whole distortions; every run draws the recorded numbers in the recorded order."""
    pixels = rgb(record["photo_in_bgr"])
    single = {
        "photo_brightness_+20.7": transforms.scale_and_shift(pixels, 1.0, 20.7),
        "photo_brightness_-31.2": transforms.scale_and_shift(pixels, 1.0, -31.2),
        "photo_contrast_0.53": transforms.scale_and_shift(pixels, 0.53, 0.0),
        "photo_contrast_1.47": transforms.scale_and_shift(pixels, 1.47, 0.0),
        "photo_saturation_1.31": transforms.change_saturation(pixels, 1.31),
        "photo_hue_-18": transforms.change_hue(pixels, -18),
        "photo_hue_+17": transforms.change_hue(pixels, 17),
    }
    for name, ours in single.items():
        yield vector_row(name, ours, rgb(record[name]))
    yield compare("photo_hsv", torch.from_numpy(transforms.to_hsv(pixels)), record["photo_hsv"].transpose(2, 0, 1))
    distort = transforms.PhotometricDistortion()
    nothing: Any = None
    for case in cases:
        replay: Any = Replay(case["draws"])
        ours, _ = distort(torch.from_numpy(pixels), nothing, replay)
        assert not replay.draws, f"draws left in run {case['seed']}"
        if case.get("saved"):
            name = f"photo_out_seed{case['seed']}"
            yield vector_row(name, ours.numpy(), rgb(record[name]))


def vector_row(name: str, ours: np.ndarray, recorded: np.ndarray) -> Row:
    """Equal in the columns that OpenCV computes as vectors."""
    whole = ours.shape[2] // VECTOR * VECTOR
    return compare(name, torch.from_numpy(ours[..., :whole].copy()), recorded[..., :whole])


def sample_rows(record: Any, meta: dict[str, Any], case: dict[str, Any]) -> Iterator[Row]:
    """A complete training sample: the recorded draws, our transforms, then normalised and padded as the model does."""
    target: Any = LabelMap(torch.from_numpy(record["base_seg"]), 0, (97, 141), (97, 141))
    image, replay = torch.from_numpy(rgb(record["base_bgr"])), Replay(case["draws"])
    long, short = meta["img_scale"]
    for transform in transforms.training_transforms(meta["crop"], short=short, long=long):
        image, target = transform(image, target, replay)  # pyright: ignore[reportArgumentType]
    assert not replay.draws, f"draws left in sample {case['seed']}"
    mean, std = (torch.from_numpy(each)[:, None, None] for each in IMAGENET)
    height, width = target.size
    pixels = torch.zeros((3, meta["crop"], meta["crop"]), dtype=torch.float64)
    pixels[:, :height, :width] = (image - mean) / std
    labels = torch.full((meta["crop"], meta["crop"]), IGNORE)
    labels[:height, :width] = target.labels
    name = f"train_pipe_seed{case['seed']}"
    yield compare(f"{name}_img", pixels, record[f"{name}_img"])
    yield compare(f"{name}_seg", labels, record[f"{name}_seg"])


# ---- metric ---------------------------------------------------------------------------------------------------------


def prediction_with(truth: np.ndarray, right: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """A label map like truth (H, W) with `right` (K,) correct and `predicted` (K,) pixels of every class.

    The record holds these areas, not the map; errors are dealt out so that none falls on its own class.
    """
    labels = truth.copy()
    order = np.flatnonzero(truth != IGNORE)
    of_class = truth.flat[order]
    rank = np.zeros(len(order), np.int64)
    for label in np.unique(of_class):
        rank[of_class == label] = np.arange((of_class == label).sum())
    wrong = order[rank >= right[of_class]]
    wrong = wrong[np.argsort(truth.flat[wrong], kind="stable")]
    errors = np.repeat(np.arange(len(right)), (predicted - right).astype(int))
    for shift in range(len(errors)):
        if (np.roll(errors, shift) != truth.flat[wrong]).all():
            labels.flat[wrong] = np.roll(errors, shift)
            return labels
    raise AssertionError("no arrangement of the errors has the recorded areas")


def metric_rows(folder: Path) -> Iterator[Row]:
    """Areas of three images, IoU and accuracy of every class, and their means."""
    record, meta = np.load(folder / "metric.npz"), json.loads((folder / "meta.json").read_text())["metric"]
    found: list[Tensor] = []
    for i in range(3):
        truth, right = record[f"gt{i}"], record[f"intersect{i}"]
        counts = count(truth, prediction_with(truth, right, record[f"pred{i}"]), len(right))
        areas = counts.areas
        union = areas[1] + areas[2] - areas[0]
        for name, ours in (("intersect", areas[0]), ("union", union), ("label", areas[2])):
            yield compare(f"metric: {name}{i}", torch.from_numpy(ours), record[f"{name}{i}"], EQUAL)
        found.append(torch.from_numpy(areas))
    totals = Areas.gather([each.numpy() for each in found], len(record["IoU"])).totals
    for name, ours in zip(("IoU", "Acc"), iou_and_accuracy(totals), strict=True):
        theirs = 100 * record[name]
        missing = compare(f"metric: {name} is NaN", torch.from_numpy(np.isnan(ours)), np.isnan(theirs))
        yield missing
        yield compare(f"metric: {name}", torch.from_numpy(np.nan_to_num(ours)), np.nan_to_num(theirs), METRIC)
    means = summarise(totals, np.full(len(record["IoU"]), "f"))
    for name in ("aAcc", "mIoU", "mAcc"):
        yield compare(
            f"metric: {name}", torch.tensor(float(means[name]), dtype=torch.float64), 100 * meta[name], METRIC
        )

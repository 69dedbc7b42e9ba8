import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from shared import shared
from tiny_dataset import SQUARE, annotation, categories, image, write_dataset, write_json, write_photo

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog
from cvpods_ext.data.annotations import annotations
from cvpods_ext.data.dataset import InferenceDataset, TrainingDataset
from cvpods_ext.data.detection_dataset import DetectionImages, read_image, read_targets
from cvpods_ext.data.transforms import HorizontalFlip, LargeScaleJitter, ShortestEdgeResize
from cvpods_ext.structures import BitMasks, PolygonMasks


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))


def load(files):
    return annotations.load(catalog.resolve(files, "."))


def training(loaded, transforms=(), patience=2, seed=0):
    return TrainingDataset(DetectionImages(loaded, "RGB", transforms), np.arange(len(loaded)), seed, patience)


def test_targets_are_the_annotations_without_crowds(tmp_path):
    ring = [1.5, 2.5, 20.0, 2.5, 20.0, 30.0]
    entries = [
        annotation(1, 1, 9, bbox=[1.5, 2.5, 18.5, 27.5], segmentation=[ring, SQUARE[0]]),
        annotation(2, 1, 3, iscrowd=1),
        annotation(3, 1, 3),
    ]
    images = [image(1, neg_category_ids=[9], not_exhaustive_category_ids=[3])]
    path = write_json(tmp_path / "x.json", images, entries, categories(3, 9))
    targets = read_targets(load(DatasetFiles(annotations=str(path), images=str(tmp_path))), 0)
    assert targets.boxes.tolist() == [[1.5, 2.5, 20, 30], [10, 10, 30, 30]]
    assert targets.labels.tolist() == [1, 0]
    assert isinstance(targets.masks, PolygonMasks)
    lists = [[list(polygon) for polygon in instance] for instance in targets.masks.to_lists()]
    assert lists == [[ring, SQUARE[0]], SQUARE]
    assert (targets.negative_labels.tolist(), targets.not_exhaustive_labels.tolist()) == ([1], [0])
    assert (targets.image_id, targets.size, targets.original_size) == (1, (48, 64), (48, 64))


def test_one_instance_with_rle_makes_bitmaps_of_all(tmp_path):
    bitmap = np.zeros((48, 64), np.uint8, order="F")
    bitmap[5:9, 40:50] = 1
    encoded = coco_mask.encode(bitmap)
    rle = {"size": [48, 64], "counts": encoded["counts"].decode()}
    entries = [annotation(1, 1, 3), annotation(2, 1, 3, bbox=[40, 5, 10, 4], segmentation=rle)]
    path = write_json(tmp_path / "x.json", [image(1)], entries, categories(3))
    masks = read_targets(load(DatasetFiles(annotations=str(path), images=str(tmp_path))), 0).masks
    assert isinstance(masks, BitMasks)
    assert np.array_equal(masks.bitmaps[1].numpy(), bitmap.astype(bool))
    assert masks.bitmaps[0].sum() == 400
    assert masks.bitmaps[0, 10:30, 10:30].all()


def test_boxes_only_have_no_masks(tmp_path):
    path = write_json(tmp_path / "x.json", [image(1)], [annotation(1, 1, 3, segmentation=None)], categories(3))
    assert read_targets(load(DatasetFiles(annotations=str(path), images=str(tmp_path))), 0).masks is None


def test_real_samples_keep_boxes_around_their_masks(monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    loaded = load("lvis_v1_train")
    pipeline = (HorizontalFlip(0.5), ShortestEdgeResize((200, 240), 400), LargeScaleJitter(160, 0.5, 2.0))
    dataset = training(loaded, pipeline)
    seen = 0
    for draw in range(20):
        sample = dataset[(draw, draw)]
        assert sample.broken == []
        targets, size = sample.target, tuple(sample.image.shape[1:])
        assert targets.size == size
        assert max(size) <= 160
        for box, polygons in zip(targets.boxes.numpy(), targets.masks.to_lists(), strict=True):
            points = np.concatenate([polygon.reshape(-1, 2) for polygon in polygons])
            assert np.allclose(box, [*points.min(axis=0), *points.max(axis=0)], atol=1e-3)
            seen += 1
        assert targets.boxes.dtype == torch.float32
        assert len(targets) == 0 or (targets.boxes[:, 2:] <= torch.tensor([size[1], size[0]]) + 1e-3).all()
    assert seen > 50


def test_augmentation_depends_on_the_draw_alone(tmp_path):
    loaded = load(write_dataset(tmp_path))
    pipeline = (ShortestEdgeResize((20, 24, 28, 32), 64), HorizontalFlip())
    first, second = training(loaded, pipeline), training(loaded, pipeline)
    drawn = [first[(draw, 2)] for draw in range(12)]
    assert len({tuple(sample.image.shape) for sample in drawn}) > 1
    for draw in reversed(range(12)):
        again = second[(draw, 2)]
        assert torch.equal(again.image, drawn[draw].image)
        assert torch.equal(again.target.boxes, drawn[draw].target.boxes)
    other = training(loaded, pipeline, seed=1)
    assert any(other[(draw, 2)].image.shape != drawn[draw].image.shape for draw in range(12))


def test_a_broken_image_is_replaced_by_the_next_and_reported(tmp_path):
    loaded = load(write_dataset(tmp_path))
    (tmp_path / "2.png").write_bytes(b"broken")
    (tmp_path / "3.png").unlink()
    sample = training(loaded)[(0, 1)]
    assert sample.target.image_id == 4
    assert [broken.image_id for broken in sample.broken] == [2, 3]
    assert "2.png cannot be decoded" in sample.broken[0].reason
    assert "3.png does not exist" in sample.broken[1].reason
    assert torch.equal(sample.image, training(loaded)[(5, 3)].image)
    gave_up = training(loaded, patience=1)[(0, 1)]
    assert gave_up.image is None
    assert len(gave_up.broken) == 2


def test_the_next_image_after_the_last_is_the_first(tmp_path):
    loaded = load(write_dataset(tmp_path, images=3))
    (tmp_path / "3.png").unlink()
    assert training(loaded)[(0, 2)].target.image_id == 1


def test_a_tested_image_is_resized_and_remembers_its_size(tmp_path):
    loaded = load(write_dataset(tmp_path))
    source = DetectionImages(loaded, "BGR", resize=ShortestEdgeResize((24,), 100))
    dataset = InferenceDataset(source, np.array([3, 4]))
    sample = dataset[1]
    assert sample.image.shape == (3, 24, 32)
    assert (sample.target.image_id, sample.target.original_size, sample.target.size) == (5, (48, 64), (24, 32))
    assert len(sample.target) == 0
    (tmp_path / "5.png").unlink()
    assert dataset[1].image is None
    assert dataset[1].broken[0].image_id == 5


def test_channel_order_follows_the_experiment(tmp_path):
    loaded = load(write_dataset(tmp_path, images=1))
    write_photo(tmp_path / "1.png")
    rgb, bgr = (read_image(loaded, 0, channels) for channels in ("RGB", "BGR"))
    assert torch.equal(rgb.flip(0), bgr)
    assert not torch.equal(rgb, bgr)

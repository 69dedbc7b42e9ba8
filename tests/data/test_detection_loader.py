import itertools
import os
import signal

import numpy as np
import pytest
import torch
from shared import shared
from tiny_dataset import annotation, categories, image, write_dataset, write_json

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.override import override
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import detection_loader as loader
from cvpods_ext.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))


def config(files, schedule=None, **data):
    small = dict(train_sizes=(20, 24, 28), train_max_size=64, test_size=24, test_max_size=64, workers=0)
    return override(
        DetectionConfig(),
        data={"train": files, "test": files, **small, **data},
        schedule={"batch_size": 4, "images_per_device": 2, **(schedule or {})},
    )


def take(count, *args, **kwargs):
    """The first batches, with all that identifies them."""
    batches = itertools.islice(loader.training_batches(*args, **kwargs), count)
    return [[(t.image_id, i.float().sum().item(), t.boxes.tolist()) for i, t in zip(b.images, b.targets, strict=True)]
            for b in batches]  # fmt: skip


@pytest.mark.parametrize("sampler", ["uniform", "repeat_factor", "instance_repeat_factor"])
@pytest.mark.parametrize("group", [True, False])
def test_starting_at_an_iteration_continues_exactly(tmp_path, sampler, group):
    cfg = config(write_dataset(tmp_path), sampler=sampler, repeat_threshold=3.0, group_by_aspect=group)
    whole = take(10, cfg, tmp_path)
    for start in (0, 3):
        assert take(10 - 2 * start, cfg, tmp_path, start_iteration=start) == whole[2 * start :]


def test_worker_processes_change_nothing(tmp_path):
    files = write_dataset(tmp_path)
    alone = take(8, config(files), tmp_path, start_iteration=1)
    assert take(8, config(files, workers=2), tmp_path, start_iteration=1) == alone


def test_ranks_share_every_iteration(tmp_path):
    cfg = config(write_dataset(tmp_path))
    alone = take(8, cfg, tmp_path, start_iteration=3)
    ranks = [take(4, cfg, tmp_path, start_iteration=3, rank=rank, world_size=2) for rank in range(2)]
    assert [batch for pair in zip(*ranks, strict=True) for batch in pair] == alone


def test_an_uneven_number_of_processes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"batch_size=4 cannot be shared by 3 processes"):
        take(1, config(write_dataset(tmp_path)), tmp_path, rank=0, world_size=3)


def test_grouped_batches_are_all_wide_or_all_tall(tmp_path):
    cfg = config(write_dataset(tmp_path))
    for batch in itertools.islice(loader.training_batches(cfg, tmp_path), 20):
        assert len({i.shape[1] > i.shape[2] for i in batch.images}) == 1
        assert len(batch) == 2


def test_images_without_annotations_and_beyond_max_images_are_not_trained_on(tmp_path):
    files = write_dataset(tmp_path, images=5)
    entries = [annotation(1, 2, 3), annotation(2, 3, 7), annotation(3, 4, 3, iscrowd=1), annotation(4, 5, 3)]
    sizes = [(64, 48) if number % 2 else (48, 64) for number in range(1, 6)]
    images = [image(number, *sizes[number - 1]) for number in range(1, 6)]
    write_json(tmp_path / "train.json", images, entries, categories(3, 7))

    def trained_on(**data):
        return {sample[0] for batch in take(12, config(files, **data), tmp_path) for sample in batch}

    assert trained_on() == {2, 3, 5}
    assert trained_on(max_images=2) == {2, 3}


def test_repeated_images_come_more_often(tmp_path):
    files = write_dataset(tmp_path, images=6)
    entries = [annotation(number, number, 3) for number in range(1, 7)] + [annotation(9, 4, 7)]
    images = [image(n, *((64, 48) if n % 2 else (48, 64))) for n in range(1, 7)]
    write_json(tmp_path / "train.json", images, entries, categories(3, 7))
    # f = 1/6 for class 7: r = sqrt(1.5 / (1/6)) = 3; sqrt(1.5) = 1.2247 for class 3
    cfg = config(files, sampler="repeat_factor", repeat_threshold=1.5, group_by_aspect=False)
    loaded = loader.load_checked(cfg.data, files, tmp_path)
    order = loader.batch_order(cfg, loaded, np.arange(6), start_iteration=0, rank=0, world_size=1)
    images = [image for batch in itertools.islice(order, 500) for _, image in batch]
    assert images.count(3) / len(images) == pytest.approx(3 / (3 + 5 * 1.2247), abs=0.02)


def test_large_scale_jitter_replaces_the_multi_scale_resize(tmp_path):
    cfg = config(write_dataset(tmp_path), lsj_side=32, lsj_range=(0.5, 1.5))
    sizes = [max(i.shape[1:]) for b in itertools.islice(loader.training_batches(cfg, tmp_path), 15) for i in b.images]
    assert max(sizes) == 32
    assert min(sizes) < 32


def test_an_unreadable_image_is_replaced_counted_and_listed(tmp_path, caplog):
    files = write_dataset(tmp_path)
    (tmp_path / "2.png").write_bytes(b"broken")
    listed = tmp_path / "out" / "skipped.tsv"
    for workers in (0, 2):
        listed.unlink(missing_ok=True)
        cfg = config(files, workers=workers)
        ids = {sample[0] for batch in take(12, cfg, tmp_path, skipped_file=listed) for sample in batch}
        assert ids == {1, 3, 4, 5, 6}
        [line] = listed.read_text().splitlines()
        assert line.startswith("2\timage 2: ")
        assert "2.png cannot be decoded" in line
    assert "skipped (1 so far): image 2" in caplog.text


def test_a_resumed_run_lists_no_image_twice(tmp_path):
    files = write_dataset(tmp_path)
    (tmp_path / "2.png").write_bytes(b"broken")
    listed = tmp_path / "skipped.tsv"
    for start in (0, 6):
        take(12, config(files, workers=0), tmp_path, start_iteration=start, skipped_file=listed)
    assert [line.split("\t")[0] for line in listed.read_text().splitlines()] == ["2"]


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_unreadable_images_stop_the_run_with_a_clear_message(tmp_path, workers):
    files = write_dataset(tmp_path, images=8)
    for number in (2, 3, 5, 7):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"^[34] training images cannot be read, more than the 2") as raised:
        take(20, config(files, workers=workers), tmp_path, skipped_file=tmp_path / "skipped.tsv")
    assert "listed in" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_wrong_image_folder_is_noticed_before_training(tmp_path):
    files = write_dataset(tmp_path)
    wrong = DatasetFiles(annotations=files.annotations, images=str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"no image of train\.json where it should be, for example .*elsewhere"):
        loader.training_batches(config(wrong), tmp_path)


@pytest.mark.parametrize(("broken", "refused"), [(1, False), (2, True)])
def test_more_than_a_tenth_of_broken_annotations_is_refused(tmp_path, broken, refused):
    files = write_dataset(tmp_path, images=1)
    entries = [annotation(number, 1, 3, bbox=[1, 1, 0 if number < broken else 9, 9]) for number in range(12)]
    write_json(tmp_path / "train.json", [image(1)], entries, categories(3))
    if refused:
        with pytest.raises(DataError, match=r"2 of 12 annotations in .* more than 10%; they are listed in .*csv"):
            loader.training_batches(config(files), tmp_path)
    else:
        assert take(1, config(files), tmp_path)


def test_a_set_without_any_annotation_cannot_be_trained_on(tmp_path):
    files = write_dataset(tmp_path, images=1)
    write_json(tmp_path / "train.json", [image(1)], [], categories(3))
    with pytest.raises(DataError, match="no image with an annotation"):
        loader.training_batches(config(files), tmp_path)


def test_train_and_test_must_have_as_many_categories(tmp_path):
    (tmp_path / "b").mkdir()
    train, test = write_dataset(tmp_path), write_dataset(tmp_path / "b", name="val")
    path = write_json(tmp_path / "b" / "val.json", [image(1)], [], categories(3))
    cfg = config(train, test=DatasetFiles(annotations=str(path), images=test.images))
    with pytest.raises(
        DataError, match=r"val\.json has 1 categories, the training set 2, .*: 1 of the training set are absent"
    ):
        loader.test_batches(cfg, tmp_path, 0, 1, ())


def ids_tested(cfg, folder, rank=0, world_size=1, skip=()):
    batches = loader.test_batches(cfg, folder, rank, world_size, skip)
    found = [batch.image_ids for batch in batches]
    assert len(batches) == len(found)
    assert all(len(ids) == 1 for ids in found)
    return [ids[0] for ids in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_test_sees_every_image_once_over_all_ranks(tmp_path, workers):
    cfg = config(write_dataset(tmp_path, images=7), workers=workers)
    assert ids_tested(cfg, tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    shares = [ids_tested(cfg, tmp_path, rank, 3) for rank in range(3)]
    assert sorted(itertools.chain(*shares)) == [1, 2, 3, 4, 5, 6, 7]
    assert ids_tested(cfg, tmp_path, skip={1, 5}) == [2, 3, 4, 6, 7]
    assert ids_tested(cfg, tmp_path, skip=range(1, 8)) == []


def test_an_unreadable_image_stops_a_test(tmp_path):
    files = write_dataset(tmp_path)
    (tmp_path / "4.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"a test needs every image, but image 4: .*4\.png cannot be decoded"):
        ids_tested(config(files, workers=1), tmp_path)


def test_a_killed_worker_is_an_error_and_not_a_hang(tmp_path):
    batches = loader.training_batches(config(write_dataset(tmp_path), workers=1), tmp_path)
    next(batches)
    worker = torch.multiprocessing.active_children()[-1]

    def go_on_without_the_worker():
        os.kill(worker.pid, signal.SIGKILL)
        list(itertools.islice(batches, 100))

    # torch raises from its signal handler, wherever this process is just then; inside the loader it becomes ours
    with pytest.raises((DataError, RuntimeError), match="killed"):
        go_on_without_the_worker()


def test_real_photos_flow_with_all_1203_classes(monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    cfg = config("lvis_v1_train", train_sizes=(64, 80), train_max_size=128)
    for batch in itertools.islice(loader.training_batches(cfg, "."), 8):
        for pixels, targets in zip(batch.images, batch.targets, strict=True):
            assert pixels.dtype == torch.uint8
            assert tuple(pixels.shape[1:]) == targets.size
            assert len(targets) == len(targets.masks) > 0
            assert targets.labels.max() < 1203

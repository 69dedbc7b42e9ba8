"""Shards prepared while others are still written give the same table, bit for bit."""

import time

import numpy as np
import pytest
from evaluation_cases import synthetic, write_case

from cvpods_ext.evaluation.detection import background_eval, coco_json, ground_truth, iou_cache, match_shards
from cvpods_ext.evaluation.detection.background_eval import counted_annotations, evaluating_beside, prepare
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.selection import COCO_LIMIT, LVIS_LIMIT, limit_of
from cvpods_ext.evaluation.detection.shards import shard_files

TASKS = ("bbox", "segm", "boundary")


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Ground truth and a folder of several shards."""
    monkeypatch.setattr(coco_json, "_BYTES_PER_SHARD", 7_000)
    path, shards = write_case(tmp_path, *synthetic(1))
    assert len(shard_files(shards)) > 2
    return path, ground_truth.load(path, masks=True), shards


def tables(gt, shards):
    return {task: match_table(gt, shards, task, LVIS_LIMIT, workers=1) for task in TASKS}


def forget(shards):
    for kept in shards.glob("matches-*"):
        kept.unlink()


def assert_equal(first, second):
    for task in TASKS:
        for part in ("evaluated", "objects"):
            one, other = getattr(first[task], part), getattr(second[task], part)
            for name in vars(one):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=f"{task} {name}")


def test_prepared_shards_give_the_same_table_to_the_bit_and_are_not_computed_again(case, monkeypatch):
    _, gt, shards = case
    whole = tables(gt, shards)
    forget(shards)
    for shard in shard_files(shards):
        prepare(counted_annotations(gt, TASKS), shard, max_detections=300)
    assert len(list(shards.glob("overlaps-*"))) == len(TASKS) * len(shard_files(shards))
    with monkeypatch.context() as context:
        context.setattr(match_shards, "gather", lambda *_: pytest.fail("computed again"))
        assert_equal(tables(gt, shards), whole)
    assert not list(shards.glob("overlaps-*")), "what the table holds is not kept twice"


def test_a_part_that_is_prepared_and_a_part_that_is_not_make_one_table(case):
    _, gt, shards = case
    whole = tables(gt, shards)
    forget(shards)
    for shard in shard_files(shards)[1::2]:
        prepare(counted_annotations(gt, TASKS), shard, max_detections=300)
    assert_equal(tables(gt, shards), whole)


def test_a_shard_that_changed_and_a_damaged_file_are_prepared_again(case):
    _, gt, shards = case
    first, second = shard_files(shards)[:2]
    for shard in (first, second):
        prepare(counted_annotations(gt, ("bbox",)), shard, max_detections=300)
        assert iou_cache.read(shard, "bbox", LVIS_LIMIT, gt) is not None
    assert iou_cache.read(first, "bbox", COCO_LIMIT, gt) is None
    first.touch()
    assert iou_cache.read(first, "bbox", LVIS_LIMIT, gt) is None
    kept = iou_cache.path_of(second, "bbox", LVIS_LIMIT)
    for length in (0, 10, kept.stat().st_size // 2, kept.stat().st_size - 1):
        kept.write_bytes(kept.read_bytes()[:length])
        assert iou_cache.read(second, "bbox", LVIS_LIMIT, gt) is None
        kept.unlink()
        prepare(counted_annotations(gt, ("bbox",)), second, max_detections=300)


def test_the_limit_is_the_one_that_the_evaluation_uses():
    assert limit_of(True, 17).per_image == 17
    assert limit_of(False, 17) == COCO_LIMIT


def test_a_process_prepares_what_is_there_and_what_comes_and_ends_with_the_test(case):
    path, gt, shards = case
    later = shard_files(shards)[-1]
    aside = later.rename(later.with_name("aside.tmp"))
    expected = {iou_cache.path_of(shard, "bbox", LVIS_LIMIT) for shard in shard_files(shards)}
    last = iou_cache.path_of(later, "bbox", LVIS_LIMIT)
    with evaluating_beside(path, shards, ("bbox",), 300):
        wait_for(lambda: all(one.is_file() for one in expected))
        assert not last.is_file()
        aside.rename(later)
        wait_for(last.is_file)
    assert iou_cache.read(later, "bbox", LVIS_LIMIT, gt) is not None


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the process prepared nothing"
        time.sleep(0.02)


def test_a_process_that_died_is_mentioned_and_changes_nothing(case, caplog, monkeypatch):
    path, _, shards = case
    monkeypatch.setattr(background_eval.sys, "executable", "/bin/false")
    with evaluating_beside(path, shards, ("bbox",), 300):
        time.sleep(0.3)
    assert "beside the test died" in caplog.text


def test_an_error_of_the_user_is_left_to_the_evaluation(case, caplog, capfd):
    path, _, shards = case
    with evaluating_beside(path.with_name("absent.json"), shards, ("bbox",), 300):
        time.sleep(0.1)
    assert caplog.text == ""
    assert "Traceback" not in capfd.readouterr().err

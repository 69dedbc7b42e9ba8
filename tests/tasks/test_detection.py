"""What the detection task refuses before a run, and what it trains a network on."""

import itertools

import pytest
from tiny_dataset import SQUARE, annotation, categories, image, write_json, write_photo
from torch import nn

from cvpods_ext.config import Config, DatasetFiles, DetectionConfig, override
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine.train import check
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.modeling.detection.mask_head import MaskHead
from cvpods_ext.tasks.detection import TASK, has_mask_head


class MasksOfItsOwn(nn.Module):
    learns_masks = True


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Two images with an object on the first and ten on the second, outlined by what `make` is given."""
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))
    for number in (1, 2):
        write_photo(tmp_path / f"{number}.png", seed=number)

    def make(first, second, **test):
        objects = [annotation(1, 1, 3, segmentation=first)]
        objects += [annotation(number, 2, 3, segmentation=second) for number in range(2, 12)]
        path = write_json(tmp_path / "a.json", [image(1), image(2)], objects, categories(3))
        files = DatasetFiles(annotations=str(path), images=str(tmp_path))
        data = dict(train=files, test=files, train_sizes=(20,), train_max_size=64, workers=0)
        schedule = dict(batch_size=1, images_per_device=1)
        return Experiment(tmp_path, override(DetectionConfig(), data=data, schedule=schedule, test=test))

    return make


def images_trained_on(experiment, model):
    batches = itertools.islice(TASK.training_batches(experiment, model), 8)
    return {image_id for batch in batches for image_id in batch.image_ids}


def test_only_a_network_with_masks_leaves_out_objects_without(experiment):
    mixed = experiment(None, SQUARE)
    assert images_trained_on(mixed, nn.Linear(1, 1)) == {1, 2}
    assert images_trained_on(mixed, MasksOfItsOwn()) == {2}


def test_a_network_with_masks_is_not_trained_on_boxes_only(experiment):
    boxes = experiment(None, None)
    assert images_trained_on(boxes, nn.Linear(1, 1)) == {1, 2}
    with pytest.raises(ConfigError, match=r"a\.json has no masks, but the network of net\.py has a mask head"):
        TASK.training_batches(boxes, MasksOfItsOwn())


def test_metrics_of_masks_need_masks_in_the_test_set(experiment):
    TASK.check_test(experiment(SQUARE, SQUARE))
    TASK.check_test(experiment(None, None, metrics=("bbox",)))
    with pytest.raises(ConfigError, match=r"test\.metrics has segm, but .*a\.json has no masks: set test\.metrics=\("):
        TASK.check_test(experiment(None, None))


def test_an_evaluator_that_does_not_know_a_metric_is_refused_before_the_test(experiment):
    with pytest.raises(ConfigError, match="'hotcoco' does not know box AP_fixed"):
        TASK.check_test(experiment(None, None, metrics=("bbox", "bbox_fixed"), evaluator="hotcoco"))


def test_a_mask_head_is_found_wherever_it_is():
    head = MaskHead.__new__(MaskHead)
    nn.Module.__init__(head)
    assert has_mask_head(nn.Sequential(nn.Sequential(head)))
    assert not has_mask_head(nn.Sequential(nn.Linear(1, 1)))


def test_the_config_of_another_task_is_refused(tmp_path):
    config = Config(data=DetectionConfig().data)
    with pytest.raises(ConfigError, match="holds a Config where the task detection needs a DetectionConfig"):
        TASK.check(Experiment(tmp_path, config))


def test_a_test_set_that_cannot_be_tested_is_told_before_training(experiment, tmp_path, caplog):
    sound = experiment(SQUARE, SQUARE)
    check(sound)
    assert "cannot be tested" not in caplog.text
    path = write_json(tmp_path / "val.json", [image(1)], [], [{"id": 3, "name": "another"}])
    val = DatasetFiles(annotations=str(path), images=str(tmp_path))
    other = Experiment(tmp_path, override(sound.config, data=dict(test=val)))
    check(other)
    assert "what is trained now cannot be tested" in caplog.text
    assert "id 3 is 'class 3' in training and 'another' here" in caplog.text
    with pytest.raises(DataError, match="id 3 is 'class 3'"):  # a test during training would end it
        check(Experiment(tmp_path, override(other.config, test=dict(every=5))))


def test_what_a_run_is_trained_on_has_a_digest_of_its_content(experiment):
    digest = TASK.training_set_sha256(experiment(SQUARE, SQUARE))
    assert digest == TASK.training_set_sha256(experiment(SQUARE, SQUARE))
    assert digest != TASK.training_set_sha256(experiment(SQUARE, None))

"""What every task shares of reading: samplers, shares of processes, unreadable images; with a source of its own."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from cvpods_ext.config import Config, Data
from cvpods_ext.config.override import override
from cvpods_ext.data import loader
from cvpods_ext.data.dataset import InferenceDataset, TrainingDataset
from cvpods_ext.data.sampling import RepeatFactorSampler, UniformSampler
from cvpods_ext.data.statistics import Pairs
from cvpods_ext.errors import ConfigError, DataError

DATA = Data(train="", test="")


@dataclass
class Label:
    image_id: int

    def to(self, device):
        return self


@dataclass
class Numbers:
    """Images of one pixel: ids from 100 on, the pixel is a random number of the augmentation."""

    unreadable: set[int] = field(default_factory=set)

    def image_id(self, position):
        return 100 + position

    def training_sample(self, position, rng):
        image, label = self.test_sample(position)
        return image + rng.integers(1, 255), label

    def test_sample(self, position):
        if position in self.unreadable:
            raise DataError(f"image {self.image_id(position)} is broken")
        return torch.zeros(3, 1, 1), Label(self.image_id(position))


def batches(source, count, patience=2, **order):
    """Ids and pixels of the first batches over ten images."""
    cfg = override(Config(data=DATA), schedule=dict(batch_size=4, images_per_device=2))
    positions = {"start_iteration": 0, "rank": 0, "world_size": 1, **order}
    chosen = loader.batch_order(cfg, UniformSampler(10), None, **positions)
    found = loader.training_batches(TrainingDataset(source, np.arange(10), 0, patience), chosen, workers=0)
    return [
        (batch.image_ids, [image.sum().item() for image in batch.images]) for batch in itertools.islice(found, count)
    ]


def test_an_iteration_depends_on_its_number_alone():
    assert batches(Numbers(), 4, start_iteration=3) == batches(Numbers(), 10)[6:]
    ranks = [batches(Numbers(), 5, rank=rank, world_size=2) for rank in range(2)]
    assert [one for pair in zip(*ranks, strict=True) for one in pair] == batches(Numbers(), 10)


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=4 cannot be shared by 3 processes"):
        batches(Numbers(), 1, world_size=3)


def test_an_unreadable_image_is_replaced_by_the_next_one():
    # The five batches of one pass see each of the ten images once: 3 is replaced by 4, which comes twice.
    ids = sorted(itertools.chain(*(ids for ids, _ in batches(Numbers({3}), 5))))
    assert ids == [100, 101, 102, 104, 104, 105, 106, 107, 108, 109]
    with pytest.raises(DataError, match=r"3 training images cannot be read, more than the 2 that are skipped"):
        batches(Numbers({3, 5, 7}), 5)


@pytest.mark.parametrize(("images", "unreadable"), [(10, 2), (2999, 2), (3000, 3), (100_000, 100)])
def test_one_unreadable_image_in_a_thousand_is_tolerated(images, unreadable):
    assert loader.patience(images) == unreadable


def test_a_process_tests_its_share_of_what_is_left():
    positions, ids = np.arange(1, 6), np.arange(10, 20)  # images 11 to 15
    assert loader.share(positions, ids, {12, 99}, rank=0, world_size=2).tolist() == [1, 4]
    assert loader.share(positions, ids, {12, 99}, rank=1, world_size=2).tolist() == [3, 5]
    assert loader.share(positions, ids, range(10, 20), rank=0, world_size=1).tolist() == []


def test_a_test_needs_every_image():
    found = loader.test_batches(InferenceDataset(Numbers({2}), np.array([1, 2])), workers=0, images_per_batch=1)
    assert len(found) == 2
    with pytest.raises(DataError, match="a test needs every image, but image 102 is broken"):
        list(found)


def test_samplers_by_hand():
    def unneeded():
        raise AssertionError("a uniform sampler does not look at classes")

    assert loader.sampler(DATA, 4, unneeded) == UniformSampler(4)
    # Class 0 is in all 4 images, class 1 in image 2 alone: f = 1/4, r = sqrt(1 / (1/4)) = 2.
    pairs = Pairs(np.array([0, 1, 2, 2, 3]), np.array([0, 0, 0, 1, 0]), np.ones(5, int), 4, 2)
    data = Data(train="", test="", sampler="repeat_factor", repeat_threshold=1.0)
    sampler = loader.sampler(data, 4, lambda: pairs)
    assert isinstance(sampler, RepeatFactorSampler)
    assert sampler.factors.tolist() == [1.0, 1.0, 2.0, 1.0]


def test_a_limit_takes_the_first_images():
    assert loader.limited(np.arange(5, 9), Data(train="", test="", max_images=2)).tolist() == [5, 6]
    assert loader.limited(np.arange(5, 9), DATA).tolist() == [5, 6, 7, 8]

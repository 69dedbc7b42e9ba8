import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.data.sampling import BatchOrder, RepeatFactorSampler, UniformSampler
from cvpods_ext.data.statistics import Pairs, image_repeat_factors, repeat_factors


def batches(order, count):
    return list(itertools.islice(order, count))


def draw_numbers(found):
    return [draw for batch in found for draw, _ in batch]


def test_the_reference_pass_of_repeat_factor_sampling():
    # images 0-1989 hold class 0, image 1990 holds 0 and 1, images 1991-1999 hold class 2
    label = np.array([0] * 1991 + [1] + [2] * 9)
    image = np.array([*range(1991), 1990, *range(1991, 2000)])
    pairs = Pairs(image, label, np.ones_like(label), num_images=2000, num_classes=3)
    factors = image_repeat_factors(pairs, repeat_factors(pairs.counts(), 2000, threshold=0.001))
    assert factors[1990] == pytest.approx(1.4142135)
    assert (np.delete(factors, 1990) == 1).all()
    drawn = RepeatFactorSampler(torch.from_numpy(factors)).draw(torch.Generator().manual_seed(0))
    assert len(drawn) == 2001
    assert (drawn == 1990).sum() == 2
    assert drawn[:10].tolist() == [797, 1118, 862, 1971, 26, 874, 1077, 1895, 428, 352]


def test_fractions_are_rounded_anew_in_every_pass_and_right_on_average():
    sampler = RepeatFactorSampler(torch.tensor([1.0, 1.25, 2.5, 3.0]))
    generator = torch.Generator().manual_seed(0)
    counts = torch.stack([torch.bincount(sampler.draw(generator), minlength=4) for _ in range(1000)]).double()
    assert set(counts[:, 2].tolist()) == {2, 3}
    # 1000 draws: three standard errors are 0.05
    torch.testing.assert_close(counts.mean(dim=0), torch.tensor([1.0, 1.25, 2.5, 3.0]).double(), atol=0.05, rtol=0)


@given(num_images=st.integers(1, 30), batch_size=st.integers(1, 4), seed=st.integers(0, 5))
def test_every_image_comes_once_in_every_pass(num_images, batch_size, seed):
    order = BatchOrder(UniformSampler(num_images), seed, batch_size)
    passes = 4
    found = batches(order, passes * num_images // batch_size)
    images = [image for batch in found for _, image in batch]
    assert draw_numbers(found) == list(range(len(images)))
    for start in range(0, len(images) - num_images + 1, num_images):
        assert sorted(images[start : start + num_images]) == list(range(num_images))


orders = st.fixed_dictionaries(
    {
        "num_images": st.integers(5, 25),
        "batch_size": st.integers(1, 4),
        "seed": st.integers(0, 3),
        "grouped": st.booleans(),
        "repeated": st.booleans(),
    }
)


def make(setting, **changes):
    rng = np.random.default_rng(setting["seed"])
    size = setting["num_images"]
    factors = torch.from_numpy(rng.uniform(1, 3, size).astype(np.float32))
    return BatchOrder(
        RepeatFactorSampler(factors) if setting["repeated"] else UniformSampler(size),
        setting["seed"],
        setting["batch_size"],
        rng.integers(0, 2, size) if setting["grouped"] else None,
        **changes,
    )


@settings(deadline=None, max_examples=30)
@given(setting=orders, start=st.integers(0, 60))
def test_starting_later_continues_the_same_order(setting, start):
    assert batches(make(setting, start=start), 15) == batches(make(setting), start + 15)[start:]


@settings(deadline=None, max_examples=30)
@given(setting=orders, world=st.integers(1, 4), start=st.integers(0, 3))
def test_any_number_of_processes_shares_the_same_order(setting, world, start):
    alone = batches(make(setting, start=start * world), 6 * world)
    shares = [batches(make(setting, start=start * world, rank=rank, world_size=world), 6) for rank in range(world)]
    assert [batch for step in zip(*shares, strict=True) for batch in step] == alone


@settings(deadline=None, max_examples=30)
@given(setting=orders)
def test_grouped_batches_are_full_of_one_group_and_lose_no_draw(setting):
    setting = {**setting, "grouped": True}
    order = make(setting)
    found = batches(order, 60)
    assert all(len(batch) == setting["batch_size"] for batch in found)
    assert all(len({order.groups[image] for _, image in batch}) == 1 for batch in found)
    draws = draw_numbers(found)
    assert len(set(draws)) == len(draws)
    # What is not yet given out waits in the buckets of two groups, or belongs to the pass being given out.
    ungrouped = dict(pair for batch in batches(make({**setting, "grouped": False}), 150) for pair in batch)
    assert all(ungrouped[draw] == image for batch in found for draw, image in batch)


def test_a_group_smaller_than_a_batch_is_still_trained_on():
    order = BatchOrder(UniformSampler(5), seed=0, batch_size=2, groups=np.array([0, 0, 0, 0, 1]))
    found = batches(order, 40)
    lonely = [batch for batch in found if batch[0][1] == 4]
    assert lonely
    assert all([image for _, image in batch] == [4, 4] for batch in lonely)


def test_seeds_give_different_orders():
    first, second = (batches(BatchOrder(UniformSampler(50), seed, 2), 25) for seed in (0, 1))
    assert first != second

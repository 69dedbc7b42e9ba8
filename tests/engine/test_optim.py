import pytest
from torch import nn

from cvpods_ext.config import Polynomial, Schedule
from cvpods_ext.engine.optim import build_optimizer, learning_rate, select_trainable
from cvpods_ext.errors import ConfigError


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [(0, 2e-5), (1, 3.998e-5), (500, 0.01001), (999, 0.01998002), (1000, 0.02), (60_000, 0.002), (80_000, 2e-4)],
)
def test_the_schedule_has_the_published_rates(iteration, rate):
    schedule = Schedule(iters=90_000)
    assert learning_rate(schedule, iteration) == pytest.approx(rate, rel=1e-9)


def test_a_constant_warm_up_stays_at_its_factor():
    schedule = Schedule(iters=100, lr=1.0, decay=Polynomial(), warmup="constant", warmup_iters=10, warmup_factor=0.5)
    assert [learning_rate(schedule, i) for i in (0, 9, 10, 50)] == pytest.approx([0.5, 0.455, 0.9, 0.5])


def test_a_linear_warm_up_scales_what_the_decay_leaves():
    schedule = Schedule(iters=100, lr=2.0, decay=Polynomial(), warmup_iters=10, warmup_factor=0.0)
    assert [learning_rate(schedule, i) for i in (0, 5, 10)] == pytest.approx([0.0, 2 * 0.95 * 0.5, 2 * 0.9])


def test_rates_are_multiplied_by_the_first_pattern_that_matches_a_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    schedule = Schedule(lr_multipliers=((r"0\.bias", 2.0), (r"0\..*", 0.1)))
    optimizer = build_optimizer(model, schedule)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: scale[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.1,
        "0.bias": 2.0,
        "1.weight": 1.0,
        "1.bias": 1.0,
    }


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("0.wieght", r"lr_multipliers: '0\.wieght' matches no parameter.*'0.weight'"), ("(", "is no regular expression")],
)
def test_a_multiplier_without_a_match_is_an_error(pattern, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer(nn.Sequential(nn.Linear(2, 3)), Schedule(lr_multipliers=((pattern, 0.1),)))


def test_only_matching_parameters_are_trained():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    select_trainable(model, (r"1\.(weight|bias)",))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["1.weight", "1.bias"]


def test_a_pattern_without_a_match_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'0\.wieght' matches no parameter of this model; did you mean '0.weight'"):
        select_trainable(nn.Sequential(nn.Linear(2, 3)), ("0.wieght",))


def test_normalisation_is_not_decayed_but_biases_are():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, Schedule(weight_decay=0.5))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    expected = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert [decay[id(p)] for p in model.parameters()] == expected


def test_a_fully_frozen_model_is_refused():
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(model, Schedule())


@pytest.mark.parametrize(("world_size", "expected"), [(1, 8), (4, 2), (8, 1)])
def test_the_global_batch_is_kept_for_any_number_of_processes(world_size, expected):
    assert Schedule(batch_size=16, images_per_device=2).accumulation(world_size) == expected


@pytest.mark.parametrize("world_size", [3, 16])
def test_a_batch_that_cannot_be_shared_is_refused(world_size):
    with pytest.raises(ConfigError, match=f"cannot be shared evenly by {world_size} processes"):
        Schedule(batch_size=16, images_per_device=2).accumulation(world_size)

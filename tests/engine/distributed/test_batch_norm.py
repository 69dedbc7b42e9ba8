import torch
from torch import nn

from cvpods_ext.engine.distributed.batch_norm import RunningStatistics


def step(model, statistics, micro_batches):
    for images in micro_batches:
        with statistics.micro_batch():
            model(images)
    statistics.finish()


def test_the_statistics_move_once_a_step_by_the_mean_over_its_micro_batches():
    torch.manual_seed(0)
    micro_batches = [torch.randn(8, 2) + shift for shift in (0.0, 4.0)]
    model, alone = nn.BatchNorm1d(2), [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    step(model, RunningStatistics(model), micro_batches)
    for one, images in zip(alone, micro_batches, strict=True):
        one(images)
    torch.testing.assert_close(model.running_mean, (alone[0].running_mean + alone[1].running_mean) / 2)
    torch.testing.assert_close(model.running_var, (alone[0].running_var + alone[1].running_var) / 2)
    assert model.num_batches_tracked == 1


def test_a_micro_batch_that_is_not_finite_leaves_them_as_they_were():
    """The recorded state of such a step would otherwise hold NaN, and pods_debug would stop there."""
    model = nn.BatchNorm1d(2)
    statistics = RunningStatistics(model)
    step(model, statistics, [torch.randn(8, 2)])
    before = model.running_mean.clone(), model.running_var.clone()
    step(model, statistics, [torch.randn(8, 2), torch.full((8, 2), float("nan"))])
    assert torch.equal(model.running_mean, before[0])
    assert torch.equal(model.running_var, before[1])

import pytest
import torch
from torch import nn

from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.losses.seesaw import SeesawLoss


def test_parameters_and_buffers_follow_the_formula_from_the_first_step_on():
    torch.manual_seed(0)
    model = nn.BatchNorm1d(3)
    average = WeightAverage(model, decay=0.9)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.normal_()
            model.bias.normal_()
            model.running_mean.normal_()
            model.num_batches_tracked.fill_(10 * step)
        average.update(model)
        for name, value in model.state_dict().items():
            mixed = 0.9 * expected[name] + 0.1 * value.double()
            expected[name] = mixed if value.is_floating_point() else value.double()  # a count of steps is copied
    assert average.tensors.keys() == expected.keys()
    for name, value in average.tensors.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_constant_buffers_stay_exact_and_shared_ones_are_kept_once():
    model = eva02_of(Size(16, 2, 2), image_side=32, window=1, global_blocks=(1,))
    average = WeightAverage(model, decay=0.9999)
    for _ in range(50):
        average.update(model)
    assert torch.equal(average.tensors["rope_glb.freqs_cos"], model.rope_glb.freqs_cos)
    assert not [name for name in average.tensors if "attn.rope" in name]
    report = model.load_state_dict(average.tensors, strict=False)
    assert all(".attn.rope." in name for name in report.missing_keys)
    assert not report.unexpected_keys


def detector_part():
    """A classifier whose loss accumulates, and one whose loss only has constants."""
    losses = nn.ModuleList([SeesawLoss(3), FederatedLoss(torch.tensor([4.0, 2, 1]), num_sampled=2)])
    return nn.ModuleDict({"cls_score": nn.Linear(2, 4), "losses": losses})


def test_constants_that_a_loss_makes_from_class_counts_are_not_averaged_but_its_memory_is():
    average = WeightAverage(detector_part(), decay=0.5)
    assert set(average.tensors) == {"cls_score.weight", "cls_score.bias", "losses.0.seen"}


def test_an_average_that_still_holds_the_constants_of_a_loss_can_be_continued():
    model = detector_part()
    first = WeightAverage(model, decay=0.5)
    second = WeightAverage(detector_part(), decay=0.5)
    second.load({**first.tensors, "losses.1.log_weights": torch.zeros(3)})
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_a_resumed_average_goes_on_where_it_was():
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    first = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    first.update(model)
    second = WeightAverage(nn.Linear(2, 2), decay=0.5)
    second.load(first.tensors)
    for average in (first, second):
        average.update(model)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_the_average_of_another_model_is_refused():
    average = WeightAverage(nn.Linear(2, 2), decay=0.5)
    before = average.tensors["weight"].clone()
    with pytest.raises(WeightsError, match=r"2 tensors differ, for example 'bias'\. Resume with the net\.py"):
        average.load(nn.Linear(2, 3).state_dict())
    assert torch.equal(average.tensors["weight"], before)

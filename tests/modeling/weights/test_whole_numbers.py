"""Weights that a file holds as whole numbers are refused; counters and tables of positions may be whole."""

import pytest
import torch
from torch import nn

from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import load_into


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 2)
        self.register_buffer("positions", torch.arange(6))
        self.register_buffer("class_counts", torch.ones(2))


def state():
    torch.manual_seed(0)
    return Model().state_dict()


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_quantised_weights_are_refused_by_name(kind):
    quantised = {**state(), "head.weight": (100 * state()["head.weight"]).to(kind)}
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"x\.pth holds 1 weights as .* where the model has fractions") as raised:
        load_into(model, quantised, "x.pth")
    assert "head.weight" in str(raised.value)
    assert str(kind).removeprefix("torch.") in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_many_quantised_weights_are_counted_and_grouped():
    quantised = {name: value.to(torch.int8) for name, value in state().items()}
    with pytest.raises(WeightsError, match=r"holds 6 weights as int8 .* body\.0\.\{bias, weight\}"):
        load_into(Model(), quantised, "x.pth")


def test_counters_and_positions_are_whole_numbers_without_a_word():
    saved = state()
    assert {name for name, value in saved.items() if not value.is_floating_point()} == {
        "body.1.num_batches_tracked",
        "positions",
    }
    assert load_into(Model(), saved, "x.pth").notes == []


def test_a_buffer_of_whole_numbers_is_loaded_and_named():
    model = Model()
    report = load_into(model, {**state(), "class_counts": torch.tensor([7, 9])}, "x.pth")
    assert report.notes == ["whole numbers in the file, taken as they are: class_counts"]
    assert model.class_counts.tolist() == [7.0, 9.0]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_kind_of_fraction_is_loaded(kind):
    fractions = {name: value.to(kind) if value.is_floating_point() else value for name, value in state().items()}
    assert load_into(Model(), fractions, "x.pth").is_complete


def test_a_checkpoint_of_whole_numbers_is_not_resumed():
    model = Model()
    training = TrainingState(model, torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu"))
    saved = training.capture(3)
    assert training.restore(saved) == 3
    saved["model"]["head.weight"] = saved["model"]["head.weight"].to(torch.int8)
    with pytest.raises(WeightsError, match=r"holds head\.weight as torch\.int8 .* --weights FILE"):
        training.restore(saved)

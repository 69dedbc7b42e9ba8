import pytest
import torch

from cvpods_ext.engine.step_values import CollectedLosses, NonFiniteError, StepValues, total_loss
from cvpods_ext.errors import ConfigError

NAMES = ("loss_cls", "loss_mask")


def values(losses, norm=5.0, iteration=3, names=NAMES, stop=False):
    return StepValues(iteration, names, torch.tensor(losses), torch.tensor(norm), [391895], stop)


def test_losses_come_back_by_name_with_their_sum_and_the_norm():
    collected = CollectedLosses()
    collected.push(values([1.0, 2.0]))
    assert collected.collect() == [{"loss_cls": 1.0, "loss_mask": 2.0, "total_loss": 3.0, "grad_norm": 5.0}]
    assert collected.collect(wait=True) == []


def test_only_names_that_start_with_loss_are_added_up():
    collected = CollectedLosses()
    collected.push(values([1.0, 0.25, 2.0], names=("loss_cls", "accuracy", "loss_mask")))
    assert collected.collect()[0] == {
        "loss_cls": 1.0, "accuracy": 0.25, "loss_mask": 2.0, "total_loss": 3.0, "grad_norm": 5.0
    }  # fmt: skip
    outputs = {"loss_cls": torch.tensor(1.0), "accuracy": torch.tensor(0.25), "loss_mask": torch.tensor(2.0)}
    assert total_loss(outputs).item() == 3.0


def test_a_model_without_a_loss_is_refused():
    with pytest.raises(ConfigError, match=r"no value whose name starts with 'loss' \(its names: \['accuracy'\]\)"):
        total_loss({"accuracy": torch.tensor(0.25)})


def test_other_values_may_be_undefined():
    collected = CollectedLosses()
    collected.push(values([1.0, float("nan")], names=("loss_cls", "accuracy")))
    assert collected.collect() == [{"loss_cls": 1.0, "total_loss": 1.0, "grad_norm": 5.0}]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_iteration_the_losses_and_the_images(value):
    collected = CollectedLosses()
    collected.push(values([value, 0.41], iteration=812))
    with pytest.raises(
        NonFiniteError, match=r"loss is not finite at iteration 812 \(loss_cls=(nan|inf), loss_mask=0.41"
    ) as error:
        collected.collect()
    assert "image ids [391895]" in str(error.value)
    assert error.value.is_ours


def test_a_gradient_that_is_not_finite_is_told_from_a_loss():
    collected = CollectedLosses()
    collected.push(values([1.0, 2.0], norm=float("inf")))
    with pytest.raises(NonFiniteError, match="gradient is not finite at iteration 3"):
        collected.collect()


def test_under_a_loss_scaler_an_infinite_gradient_is_no_error():
    collected = CollectedLosses(gradient_may_overflow=True)
    collected.push(values([1.0, 2.0], norm=float("inf")))
    assert "grad_norm" not in collected.collect()[0]


def test_a_stop_request_is_agreed_on():
    collected = CollectedLosses()
    collected.push(values([1.0, 2.0], stop=True))
    assert not collected.stop_agreed
    collected.collect()
    assert collected.stop_agreed

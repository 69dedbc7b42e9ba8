import pytest
import torch

from cvpods_ext.engine.step import LossWatch, NotFinite

NAMES = ("loss_cls", "loss_mask")


def test_losses_come_back_by_name_with_their_sum_and_the_norm():
    watch = LossWatch()
    watch.push(3, NAMES, torch.tensor([1.0, 2.0]), torch.tensor(5.0), [7])
    assert watch.collect() == [{"loss_cls": 1.0, "loss_mask": 2.0, "total_loss": 3.0, "grad_norm": 5.0}]
    assert watch.collect(wait=True) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_gone_bad_names_the_iteration_the_parts_and_the_images(value):
    watch = LossWatch()
    watch.push(812, NAMES, torch.tensor([value, 0.41]), torch.tensor(1.0), [391895])
    with pytest.raises(
        NotFinite, match=r"loss is not finite at iteration 812 \(loss_cls=(nan|inf), loss_mask=0.41"
    ) as bad:
        watch.collect()
    assert "image ids [391895]" in str(bad.value)
    assert bad.value.is_ours


def test_a_gradient_gone_bad_is_told_from_a_loss():
    watch = LossWatch()
    watch.push(3, NAMES, torch.tensor([1.0, 2.0]), torch.tensor(float("inf")), [7])
    with pytest.raises(NotFinite, match="gradient is not finite at iteration 3"):
        watch.collect()


def test_under_a_loss_scaler_an_infinite_gradient_is_no_alarm():
    watch = LossWatch(gradient_may_overflow=True)
    watch.push(3, NAMES, torch.tensor([1.0, 2.0]), torch.tensor(float("inf")), [7])
    assert "grad_norm" not in watch.collect()[0]


def test_the_wish_to_stop_is_agreed_on():
    watch = LossWatch()
    watch.push(3, NAMES, torch.tensor([1.0, 2.0]), torch.tensor(1.0), [7], stop=True)
    assert not watch.stop_agreed
    watch.collect()
    assert watch.stop_agreed

import json

import pytest
import torch

from cvpods_ext.engine.monitor import LossWatch, Monitor
from cvpods_ext.errors import TrainingError


def test_losses_come_back_by_name():
    watch = LossWatch()
    watch.push(3, ("loss_cls", "loss_mask"), torch.tensor([1.0, 2.0]), [7])
    assert watch.collect() == [{"loss_cls": 1.0, "loss_mask": 2.0}]
    assert watch.collect(wait=True) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_gone_bad_names_the_iteration_the_parts_and_the_images(value):
    watch = LossWatch()
    watch.push(812, ("loss_cls", "loss_mask"), torch.tensor([value, 0.41]), [391895])
    with pytest.raises(TrainingError, match=r"at iteration 812 \(loss_cls=(nan|inf), loss_mask=0.41; image ids \[391895\]"):
        watch.collect()


def test_records_hold_medians_of_the_interval(tmp_path):
    with Monitor(tmp_path, start=0, total=4, every=2) as monitor:
        for iteration, loss in enumerate((1.0, 3.0, 5.0, 100.0)):
            monitor.add(total_loss=loss, time=0.1, data_time=0.0)
            monitor.step(iteration + 1, lr=0.5)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["iteration"], r["total_loss"], r["lr"]) for r in records] == [(2, 2.0, 0.5), (4, 52.5, 0.5)]
    assert list(tmp_path.glob("events.out.tfevents.*"))

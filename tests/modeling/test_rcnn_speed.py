"""The benchmark of the R-CNN family: what it writes, and the run beside detectron2 with a stand-in for that package."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import rcnn_speed
import speed_report
import torch
from torch import nn

REPORT = {
    "setting": {"command": "python x.py", "threads": 2},
    "tables": {
        "inference": {
            "inference": {"wall_ms": 2000.0, "cpu_ms": 3000.0},
            "  mask head": {"wall_ms": 1000.0, "cpu_ms": 1500.0},
            "    predictor": {"wall_ms": 5.0, "cpu_ms": 6.0},
        }
    },
    "memory": {"peak": 12.4},
}
QUOTED = {"inference": {"inference": 5000, "mask head": 3000}}


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_table_has_quoted_times_and_how_many_times_as_long_they_are():
    table = rows(speed_report.to_markdown(REPORT, QUOTED))
    assert table[0] == ["part", "wall ms", "CPU ms", "detectron2, quoted, wall ms", "ratio"]
    assert table[2] == ["inference", "2000.0", "3000.0", "5000", "2.50"]
    assert table[3] == ["→ mask head", "1000.0", "1500.0", "3000", "3.00"]
    assert table[4] == ["→ → predictor", "5.0", "6.0", "", ""]
    assert table[-1] == ["peak", "12"]


def test_an_earlier_report_is_compared_by_processor_time():
    before = {"tables": {"inference": {"inference": {"wall_ms": 4000.0, "cpu_ms": 6000.0}}}}
    table = rows(speed_report.to_markdown(REPORT, {}, before))
    assert table[0][3:] == ["before, wall ms", "before, CPU ms", "CPU before / now"]
    assert table[2] == ["inference", "2000.0", "3000.0", "4000.0", "6000.0", "2.00"]
    assert table[3][3:] == ["", "", ""]


def test_what_ran_beside_has_a_column_of_its_own():
    table = rows(speed_report.to_markdown(REPORT | {"beside": {"inference": {"inference": 3000.0}}}, QUOTED))
    assert table[0][-2:] == ["detectron2, beside, wall ms", "ratio"]
    assert table[2][-4:] == ["5000", "2.50", "3000", "1.50"]


def test_calls_within_a_repetition_are_added_and_functions_are_put_back():
    holder, clock = SimpleNamespace(work=lambda x: 2 * x), speed_report.Clock()
    original = holder.work
    with clock.watch({"work": (holder, "work")}):
        assert [holder.work(i) for i in range(6)] == [0, 2, 4, 6, 8, 10]
    assert holder.work is original
    clock.spent["work"] = [(1.0, 2.0), (3.0, 4.0), (10.0, 1.0), (10.0, 1.0), (5.0, 5.0), (5.0, 5.0)]
    assert clock.times({"work": None, "never called": None}, repeat=3) == {"work": {"wall_ms": 10.0, "cpu_ms": 6.0}}


class Stand(nn.Module):
    """As detectron2's model: losses in training, where an event storage must be open."""

    def __init__(self, storages):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.storages = storages
        self.seen = []

    def forward(self, records):
        self.seen.append(self.training)
        assert [record["image"].shape for record in records] == [(3, 64, 64)]
        if self.training:
            assert self.storages[-1] == "open"
            return {"loss_cls": self.weight.sum(), "loss_mask": (2 * self.weight).sum()}
        assert not torch.is_grad_enabled()
        return [{}]


class Instances:
    def __init__(self, size):
        self.image_size = size


@pytest.fixture
def storages(monkeypatch):
    events = []

    class EventStorage:
        def __enter__(self):
            events.append("open")

        def __exit__(self, *error):
            events.append("closed")

    structures = {"Boxes": list, "Instances": Instances, "PolygonMasks": list}
    for name, content in {
        "detectron2": {},
        "detectron2.structures": structures,
        "detectron2.utils": {},
        "detectron2.utils.events": {"EventStorage": EventStorage},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return events


def test_the_run_beside_detectron2_trains_and_infers_as_often_as_asked(storages):
    records = rcnn_speed.as_records(rcnn_speed.example(1, 64, 7, objects=2))
    truth = records[0]["instances"]
    assert (records[0]["height"], records[0]["width"], truth.image_size) == (64, 64, (64, 64))
    assert (len(truth.gt_boxes), len(truth.gt_classes), len(truth.gt_masks)) == (2, 2, 2)
    assert len(truth.gt_masks[0][0]) == 80  # one flat polygon of 40 vertices
    stand = Stand(storages)
    times = rcnn_speed.measure_detectron2(stand, records, repeat=2)
    assert stand.seen == [False, True] * 3
    assert {title: set(parts) for title, parts in times.items()} == {
        "inference": {"inference"},
        "training step": {"training step", "forward", "backward"},
    }
    assert stand.weight.grad == 3


def test_a_missing_compiler_is_told(monkeypatch):
    monkeypatch.setattr(rcnn_speed.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert "found no g++ or clang++" in rcnn_speed.compiler_is_missing()
    monkeypatch.setenv("CXX", "my++")
    assert "found no my++" in rcnn_speed.compiler_is_missing()
    monkeypatch.setattr(rcnn_speed.shutil, "which", lambda name: name)
    assert rcnn_speed.compiler_is_missing() == ""

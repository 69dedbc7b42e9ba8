"""Loss and accuracy of rare, common and frequent classes, counted from what the losses see."""

import json
import math

import numpy as np
import pytest
import torch
from processes import records, train
from tiny_experiment import make_data, make_experiment
from torch import nn

from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.tasks.frequency_groups import GroupMeter

CPU = torch.device("cpu")
GROUPS = np.array(["r", "f", "r"])


def test_means_by_hand():
    model = nn.ModuleDict({"loss": SoftmaxCrossEntropy()})
    meter = GroupMeter(model, GROUPS, CPU)
    # Scores of the three classes and background; background rows count for no group.
    scores = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.2, 0.2, 0.1, 0.5], [0.1, 0.4, 0.3, 0.2], [0.0, 0.9, 0.0, 0.1]])
    model["loss"](scores[:2].log(), torch.tensor([0, 2]))
    model["loss"](scores[2:].log(), torch.tensor([1, 3]))
    values = meter.take()
    assert values == pytest.approx(
        {
            "group_loss/rare": -(math.log(0.7) + math.log(0.1)) / 2,
            "group_accuracy/rare": 0.5,
            "group_loss/frequent": -math.log(0.4),
            "group_accuracy/frequent": 1.0,
        },
        rel=1e-6,
    )
    assert meter.take() == {}


def test_scores_are_those_of_the_loss():
    model = nn.ModuleDict({"loss": SigmoidCrossEntropy()})
    meter = GroupMeter(model, GROUPS, CPU)
    model["loss"](torch.tensor([[0.0, 2.0, -1.0, 9.0]]), torch.tensor([1]))
    assert meter.take() == pytest.approx(
        {"group_loss/frequent": math.log1p(math.exp(-2)), "group_accuracy/frequent": 1}
    )


def test_all_stages_of_a_cascade_count_and_a_test_does_not():
    model = nn.ModuleDict({"a": SoftmaxCrossEntropy(), "b": SoftmaxCrossEntropy()})
    meter = GroupMeter(model, GROUPS, CPU)
    right, wrong = torch.tensor([[9.0, 0, 0, 0]]), torch.tensor([[0, 9.0, 0, 0]])
    label = torch.tensor([0])
    model["a"](right, label)
    model["b"](wrong, label)
    model.eval()
    model["a"](wrong, label)
    assert meter.take()["group_accuracy/rare"] == 0.5


def test_listening_changes_neither_value_nor_gradient():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 3])
    results = []
    for listened in (False, True):
        loss, given = SoftmaxCrossEntropy(), logits.clone().requires_grad_()
        if listened:
            GroupMeter(loss, GROUPS, CPU)
        loss(given, labels).backward()
        results.append(given.grad)
    assert torch.equal(*results)


def test_two_processes_report_what_one_does(tmp_path):
    """Every process sees half of the images."""
    experiment = make_experiment(tmp_path / "experiment", make_data(tmp_path), "SoftmaxCrossEntropy()")
    reports = []
    for ranks in (1, 2):
        output = tmp_path / f"out{ranks}"
        assert train(experiment, output, "log_every=6", ranks=ranks) == [0] * ranks
        reports.append([{k: v for k, v in r.items() if k.startswith("group_")} for r in records(output)])
    assert len(reports[0]) == 2
    stated = {
        c["frequency"] for c in json.loads((tmp_path / "data/lvis/lvis_box_train.json").read_text())["categories"]
    }
    names = {name for letter, name in (("r", "rare"), ("c", "common"), ("f", "frequent")) if letter in stated}
    for one, two in zip(*reports, strict=True):
        assert {name.split("/")[1] for name in one} == names
        assert two == pytest.approx(one, rel=1e-5)

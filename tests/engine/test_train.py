"""Whole runs of a tiny experiment: what is promised for one process and for several."""

import pytest
import torch
from processes import differences, final_state, losses, train
from tiny_experiment import make_data, make_experiment

LOSSES = {
    "softmax": "SoftmaxCrossEntropy()",
    "eqlv2": "EqualizationLossV2(classes)",
    "seesaw": "SeesawLoss(classes)",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, data):
    return make_experiment(tmp_path_factory.mktemp("experiment") / "plain", data, LOSSES["softmax"])


@pytest.fixture(scope="module")
def single(tmp_path_factory, experiment):
    output = tmp_path_factory.mktemp("single") / "out"
    assert train(experiment, output) == [0]
    return output


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("sharding", ["replicate", "shard"])
def test_several_processes_train_as_one_does_by_accumulation(tmp_path, experiment, single, ranks, sharding):
    output = tmp_path / "out"
    assert train(experiment, output, f"schedule.sharding={sharding}", ranks=ranks) == [0] * ranks
    torch.testing.assert_close(torch.tensor(losses(output)), torch.tensor(losses(single)), rtol=1e-5, atol=1e-6)
    ours, theirs = final_state(output), final_state(single)
    assert ours.keys() == theirs.keys()
    assert any("running_mean" in name for name in ours)
    assert any("ema_state" in name for name in ours)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_two_runs_are_equal_bit_for_bit(tmp_path, experiment, single):
    assert train(experiment, tmp_path / "again") == [0]
    assert differences(tmp_path / "again", single) == []


@pytest.mark.parametrize("loss", ["eqlv2", "seesaw"])
def test_the_memory_of_a_loss_does_not_depend_on_how_the_batch_is_spread(tmp_path, data, loss):
    experiment = make_experiment(tmp_path / loss, data, LOSSES[loss])
    outputs = tmp_path / "one", tmp_path / "two"
    assert train(experiment, outputs[0]) == [0]
    assert train(experiment, outputs[1], ranks=2) == [0, 0]
    one, two = map(final_state, outputs)
    memories = [name for name in one if "/loss." in name]
    assert any(name.startswith("/model/") for name in memories)
    assert any(name.startswith("/ema_state/") for name in memories)
    for name in memories:
        assert one[name].any(), name
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*(torch.tensor(losses(output)) for output in outputs), rtol=1e-5, atol=1e-6)

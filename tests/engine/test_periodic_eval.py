"""Tests during training: their results, and that training is the same with and without them."""

import json
import shutil
import signal

import pytest
import torch
from processes import differences, last_iteration, records, running, train
from tiny_experiment import make_data, make_experiment

from cvpods_ext.config import override
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.checkpoint import INDEX, CheckpointFolder
from cvpods_ext.engine.periodic_eval import PeriodicTest
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.results import Results

OFTEN = ("test.every=3", "keep_best=bbox/AP50", "keep_checkpoints=1", "checkpoint_every=6")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("periodic")
    return make_experiment(root / "experiment", make_data(root))


@pytest.fixture(scope="module")
def untested(experiment):
    output = experiment.parent / "untested"
    assert train(experiment, output, "keep_checkpoints=1") == [0]
    return output


@pytest.fixture(scope="module")
def tested(experiment):
    output = experiment.parent / "tested"
    assert train(experiment, output, *OFTEN) == [0]
    return output


def outcomes(output):
    return {r["iteration"]: r for r in records(output) if any(key.startswith("test/") for key in r)}


def test_training_is_the_same_to_the_bit(tested, untested):
    assert differences(tested, untested) == []


def test_every_test_is_recorded_with_its_results(tested):
    assert sorted(outcomes(tested)) == [3, 6, 9, 12]
    for iteration, record in outcomes(tested).items():
        results = Results.read(tested / "tests" / f"iter_{iteration:07d}" / "results.json")
        assert results.provenance["iteration"] == iteration
        assert record["test/bbox/AP50"] == results.metrics["bbox"]["AP50"]
    assert not list((tested / "tests").rglob("*.parquet"))
    assert not (tested / "results.json").exists()


def test_the_best_checkpoint_is_kept_beside_the_last(tested):
    scores = {iteration: record["test/bbox/AP50"] for iteration, record in outcomes(tested).items()}
    assert len(set(scores.values())) > 1
    best = max(scores, key=lambda iteration: (scores[iteration], -iteration))
    entries = json.loads((tested / INDEX).read_text())["checkpoints"]
    assert {entry["iteration"] for entry in entries} == {best, 12}
    assert CheckpointFolder(tested).best() == tested / f"model_iter_{best:07d}.pth"
    assert {int(path.stem[-7:]) for path in tested.glob("model_iter_*.pth")} == {best, 12}


def test_two_processes_test_as_one_does(tmp_path, experiment):
    """The same checkpoint, since training in two processes rounds otherwise and so ends in another network."""
    output = tmp_path / "two"
    assert train(experiment, output, *OFTEN, ranks=2) == [0, 0]
    assert sorted(outcomes(output)) == [3, 6, 9, 12]
    shutil.rmtree(output / "tests")
    loaded = load_experiment(experiment, [*OFTEN, f"output={output}"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes
    try:
        metrics = PeriodicTest(loaded, torch.device("cpu"), CheckpointFolder(output, keep=1)).run(12)
    finally:
        torch.set_num_threads(threads)
    record = outcomes(output)[12]
    known = {f"test/bbox/{name}": value for name, value in metrics["bbox"].items() if value is not None}
    assert len(known) > 3
    assert {name: record[name] for name in known} == known


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_ends_within_a_test_goes_on_with_it(tmp_path, experiment, tested, untested, number):
    output = tmp_path / "ended"
    with running(experiment, output, *OFTEN, environment={"TINY_TEST_SECONDS": "1"}) as run:
        run.wait_until(6)  # the test of step 6 takes seconds
        run.signal(number)
        codes = run.wait()
    assert codes == [130 if number == signal.SIGTERM else -signal.SIGKILL]
    assert sorted(outcomes(output)) == [3]
    assert last_iteration(output) == 6
    assert train(experiment, output, *OFTEN, resume=True) == [0]
    assert outcomes(output) == outcomes(tested)
    assert differences(output, untested) == []


def test_what_would_fail_at_the_first_test_fails_at_once(experiment):
    def start(**changes):
        loaded = load_experiment(experiment)
        config = override(loaded.config, **changes)
        return PeriodicTest(type(loaded)(loaded.folder, config), torch.device("cpu"), CheckpointFolder(experiment))

    with pytest.raises(ConfigError, match=r"unknown metric 'bbox/APx': did you mean 'bbox/AP"):
        start(test=dict(every=3), keep_best="bbox/APx")
    with pytest.raises(ConfigError, match=r"keep_best='segm/AP': test\.metrics=\('bbox',\) does not compute segm"):
        start(test=dict(every=3), keep_best="segm/AP")
    with pytest.raises(ConfigError, match=r"needs tests during training: set test\.every"):
        start(keep_best="bbox/AP")
    with pytest.raises(ConfigError, match=r"set schedule\.ema_decay"):
        start(test=dict(every=3, ema=True), schedule=dict(ema_decay=0.0))
    assert not start().due(0)
    assert [i for i in range(14) if start(test=dict(every=5)).due(i)] == [5, 10, 12]

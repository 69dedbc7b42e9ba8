"""What changed, and whether predictions on disk are used again."""

import importlib
import sys

import pytest
import torch
from tiny_experiment import make_data, make_experiment

from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine import identity as identities
from cvpods_ext.engine import infer
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.identity import identity
from cvpods_ext.errors import WeightsError
from cvpods_ext.evaluation.detection.shards import shard_files
from cvpods_ext.tasks.task import find

CPU = torch.device("cpu")
EVALUATION = {"test.evaluator", "test.max_detections"}


@pytest.fixture
def experiment(tmp_path):
    return load_experiment(make_experiment(tmp_path / "experiment", make_data(tmp_path)))


def of(experiment, weights_sha256="w"):
    return identity(experiment, experiment.build_model(), weights_sha256)


def test_every_setting_counts_but_those_without_effect(experiment, monkeypatch):
    before, flat, model = of(experiment), flatten(experiment.config), experiment.build_model()
    assert before == of(experiment)
    unnoticed = set()
    for key in flat:
        monkeypatch.setattr(identities, "flatten", lambda config, key=key: {**flat, key: "changed"})
        if identity(experiment, model, "w") == before:
            unnoticed.add(key)
    assert unnoticed == {*identities.WITHOUT_EFFECT} | EVALUATION
    assert {*identities.WITHOUT_EFFECT} | EVALUATION <= flat.keys(), "a setting that does not exist"


@pytest.mark.parametrize("changed", ["net.py", "config.py", "a_new_helper.py"])
def test_every_source_of_the_folder_counts(experiment, changed):
    before = of(experiment)
    with open(experiment.folder / changed, "a", encoding="utf-8") as file:
        file.write("# another comment\n")
    assert of(experiment) != before


def test_weights_data_code_and_computed_buffers_count(experiment, monkeypatch):
    before = of(experiment)
    assert of(experiment, "other weights") != before
    model = experiment.build_model()
    model.register_buffer("class_counts", torch.tensor([1.0, 2.0]), persistent=False)
    counted = identity(experiment, model, "w")
    assert counted != before
    model.class_counts[1] = 3.0
    assert identity(experiment, model, "w") != counted
    annotations = experiment.folder / experiment.config.data.test.annotations
    annotations.write_text(annotations.read_text() + "\n")
    assert of(experiment) != before
    monkeypatch.setattr(identities, "_code_sha256", lambda: "other code")
    assert of(experiment)["code_sha256"] == "other code"


def test_an_image_file_that_was_replaced_counts(experiment):
    before = of(experiment)
    file = find(experiment.config.task).test_files(experiment)[0]
    content = file.read_bytes()
    file.write_bytes(content + b"\0")
    assert of(experiment) != before
    file.write_bytes(content)
    assert of(experiment) == before, "a copy of the data set is the same data set"
    file.unlink()
    assert of(experiment) != before


def test_small_files_beside_net_py_count_but_not_what_runs_write(experiment):
    before = of(experiment)
    (experiment.folder / "results.json").write_text("{}")
    (experiment.output / "metrics.jsonl").parent.mkdir(parents=True, exist_ok=True)
    (experiment.output / "metrics.jsonl").write_text("{}")
    assert of(experiment) == before
    (experiment.folder / "numbers.json").write_text("[1.0]")
    first = of(experiment)
    assert first != before
    (experiment.folder / "numbers.json").write_text("[50.0]")
    assert of(experiment) != first


def test_modules_that_net_py_imports_from_outside_its_folder_count(experiment, tmp_path, monkeypatch):
    helper = tmp_path / "a_module_beside_the_experiment.py"
    helper.write_text("TAU = 1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(helper.stem)
    sys.modules.pop(helper.stem)
    monkeypatch.setitem(sys.modules, helper.stem, module)
    before = of(experiment)
    helper.write_text("TAU = 2.0")
    assert of(experiment) != before


def write_weights(experiment, seed, **more):
    torch.manual_seed(seed)
    state = {**experiment.build_model().state_dict(), **more}
    return CheckpointFolder(experiment.output).save_final({"model": state, "iteration": 0})


def test_predictions_are_used_again_replaced_or_kept(experiment):
    """The same test again writes nothing; another network replaces all; weights that do not fit remove nothing."""
    folder = infer.predictions_of(experiment).folder

    def test(weights):
        infer.infer(CPU, experiment, weights, infer.test_settings(experiment, weights))
        return {path.name: path.stat().st_mtime_ns for path in shard_files(folder)}

    first = test(write_weights(experiment, seed=0))
    assert len(first) == 1
    assert test(write_weights(experiment, seed=0)) == first
    second = test(write_weights(experiment, seed=1))
    assert second.keys() == first.keys()
    assert second != first
    assert not list(folder.parent.glob("previous-*"))
    unfit = write_weights(experiment, seed=1, **{"predictor.bias": torch.zeros(99)})
    with pytest.raises(WeightsError, match="does not fit this experiment"):
        test(unfit)
    assert {path.name: path.stat().st_mtime_ns for path in shard_files(folder)} == second


def test_earlier_predictions_stay_until_all_new_ones_are_written(experiment, monkeypatch):
    weights = write_weights(experiment, seed=0)
    infer.infer(CPU, experiment, weights, infer.test_settings(experiment, weights))
    folder = infer.predictions_of(experiment).folder
    other = write_weights(experiment, seed=1)
    built = experiment.build_model()
    monkeypatch.setattr(type(experiment), "build_model", lambda self: built)
    monkeypatch.setattr(built, "detect", lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        infer.infer(CPU, experiment, other, infer.test_settings(experiment, other))
    assert len(shard_files(folder.with_name(f"previous-{folder.name}"))) == 1
    assert not shard_files(folder)


def test_weights_that_are_not_finite_are_not_tested(experiment):
    state = experiment.build_model().state_dict()
    name = next(name for name, value in state.items() if value.is_floating_point() and name.endswith("weight"))
    weights = write_weights(experiment, seed=0, **{name: torch.full_like(state[name], float("nan"))})
    with pytest.raises(WeightsError, match=f"not finite, such as {name}"):
        infer.infer(CPU, experiment, weights, infer.test_settings(experiment, weights))


@pytest.mark.parametrize("left", [0, 3, 100])
def test_a_shard_that_was_cut_short_is_made_again_and_the_others_are_kept(experiment, left, caplog):
    weights = write_weights(experiment, seed=0)
    settings = infer.test_settings(experiment, weights)
    infer.infer(CPU, experiment, weights, settings)
    predictions = infer.predictions_of(experiment)
    whole = set(predictions.completed())
    [shard] = shard_files(predictions.folder)
    complete = shard.read_bytes()
    shard.write_bytes(complete[:left])
    with caplog.at_level("WARNING", logger="cvpods_ext"):
        infer.infer(CPU, experiment, weights, settings)
    assert "was cut short, its images are predicted again" in caplog.text
    assert set(predictions.completed()) == whole
    assert shard.read_bytes() == complete
    assert shard.with_name(f"{shard.name}.damaged").read_bytes() == complete[:left]

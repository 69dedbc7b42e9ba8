"""Folders in the style of cvpods load, build and leave nothing behind."""

import os
import sys
from pathlib import Path

import old_folders
import pytest
import torch

from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import rate_factors
from cvpods_ext.errors import ConfigError

NAMES = ("cvpods", "config", "net", "roi_heads")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(old_folders.data_root(tmp_path / "datasets", images=2)))
    return tmp_path


def leftovers():
    return [name for name in sys.modules if name.partition(".")[0] in NAMES]


def test_a_folder_loads_and_builds_and_leaves_modules_and_paths_as_they_were(root):
    folder = old_folders.plain(root / "plain")
    before, path, here = set(sys.modules), list(sys.path), Path.cwd()
    experiment = load_experiment(folder)
    model = experiment.build_model()
    assert "roi_heads.box_predictor.cls_score.weight" in model.state_dict()
    assert (leftovers(), sys.path, Path.cwd()) == ([], path, here)
    assert all(name.startswith(("cvpods_ext", "torch")) for name in set(sys.modules) - before if "cvpods" in name)
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.py", "net.py"]


def test_a_module_of_the_same_name_is_put_back(root, monkeypatch):
    other = type(sys)("config")
    monkeypatch.setitem(sys.modules, "config", other)
    load_experiment(old_folders.plain(root / "plain")).build_model()
    assert sys.modules["config"] is other


def test_the_recipe_is_that_of_the_folder(root):
    config = load_experiment(old_folders.repeated(root / "rfs")).config
    flat = flatten(config)
    expected = {
        "task": "detection",
        "data.train": "lvis_v1_train",
        "data.test": "lvis_v1_val",
        "data.sampler": "repeat_factor",
        "data.repeat_threshold": 0.001,
        "data.group_by_aspect": False,  # that sampler does not group
        "data.train_sizes": (640, 800),
        "data.channels": "BGR",
        "model.detections_per_image": 300,
        "model.score_threshold": 0.0001,
        "schedule.iters": 180_000,
        "schedule.batch_size": 16,
        "schedule.images_per_device": 2,
        "schedule.lr": 0.02,
        "schedule.warmup_iters": 1000,
        "test.metrics": ("bbox", "segm"),
    }
    assert {key: flat[key] for key in expected} == expected
    assert config.schedule.decay.milestones(180_000) == (120_000, 160_000)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["SOLVER.LR_SCHEDULER.MAX_ITER", "90000"], "schedule.iters", 90_000),
        (["SOLVER.OPTIMIZER.BASE_LR", "0.01", "schedule.batch_size=8"], "schedule.lr", 0.01),
        (["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05"], "model.score_threshold", 0.05),
        (["MODEL.WEIGHTS=none"], "model.init", "none"),
        (["model.score_threshold=0.3"], "model.score_threshold", 0.3),
    ],
)
def test_overrides_of_both_kinds_count(root, words, key, value):
    assert flatten(load_experiment(old_folders.plain(root / "plain"), words).config)[key] == value


def test_an_override_under_our_name_reaches_the_network(root):
    folder = old_folders.plain(root / "plain")
    model = load_experiment(folder, ["model.score_threshold=0.3", "model.proposals=(7, 5)"]).build_model()
    assert model.roi_heads.test_score_thresh == 0.3
    assert model.proposal_generator.selection.per_image == (7, 5)


def test_a_second_stage_is_loaded_without_its_checkpoint_and_starts_from_the_first(root):
    folder = old_folders.aligned(root / "second", "first")
    experiment = load_experiment(folder)
    assert experiment.config.model.init == "experiment:first"
    model = experiment.build_model()
    training = {name for name, p in model.named_parameters() if p.requires_grad}
    names = ("logit_scale", "logit_bias", "confidence_layer.weight", "confidence_layer.bias")
    assert training == {f"roi_heads.box_predictor.{name}" for name in names}
    assert not (root / "first").exists()
    assert leftovers() == []


def test_a_checkpoint_of_cvpods_in_the_log_of_the_first_stage_is_the_start(root):
    folder, log = old_folders.aligned(root / "second", "first"), root / "first" / "log"
    log.mkdir(parents=True)
    torch.save({"model": {}, "optimizer": {}}, log / "model_final.pth")
    assert load_experiment(folder).config.model.init == "../first/log/model_final.pth"
    torch.save({"model": {}}, log / "plain_model_final.pth")
    assert load_experiment(folder).config.model.init == "../first/log/plain_model_final.pth"
    assert (log / "plain_model_final.pth").stat().st_size > 0


@pytest.mark.parametrize("module", ["fast_rcnn", "disalign_fast_rcnn"])
def test_predictors_are_found_under_both_import_paths(root, module):
    model = load_experiment(old_folders.aligned(root / module, "first", "Cosine", module)).build_model()
    assert "roi_heads.box_predictor.cls_score.scale" in model.state_dict()


def test_a_stray_name_is_left_out_and_reported_and_the_file_stays(root):
    folder = old_folders.aligned(root / "second", "first")
    text = (folder / "net.py").read_text()
    line = 1 + text.splitlines().index("    so")
    experiment = load_experiment(folder)
    assert experiment.build_model() is not None
    assert any(note.startswith(f"net.py:{line}: the name 'so' stands alone") for note in experiment.notes())
    assert (folder / "net.py").read_text() == text


def test_notes_say_what_became_of_every_setting(root):
    notes = "\n".join(load_experiment(old_folders.aligned(root / "second", "first")).notes())
    assert "SOLVER.LR_SCHEDULER.MAX_ITER = 180000  ->  schedule.iters = 180000" in notes
    assert "OUTPUT_DIR: output goes to outputs/" in notes
    assert "read by the parts of the network: MODEL.RESNETS.DEPTH" in notes
    assert "left to its code: MODEL.BACKBONE.FREEZE, MODEL.PROPOSAL_GENERATOR.FREEZE" in notes


def test_a_config_that_fails_says_where(root):
    folder = old_folders.plain(root / "plain", after="config.MODEL.NO_SUCH.KEY")
    with pytest.raises(ConfigError, match=r"config\.py:\d+: AttributeError: this config has no key 'NO_SUCH'"):
        load_experiment(folder)
    assert leftovers() == []


def test_the_number_of_classes_must_be_that_of_the_data(root):
    folder = old_folders.plain(root / "plain", classes=80)
    with pytest.raises(ConfigError, match="NUM_CLASSES is 80, and the training set has 1203 classes"):
        load_experiment(folder).build_model()


def test_a_real_cvpods_is_taken_if_it_is_asked_for(root, monkeypatch):
    package = root / "site" / "cvpods" / "configs"
    package.mkdir(parents=True)
    for part in (package.parent, package):
        (part / "__init__.py").write_text("")
    (package / "rcnn_fpn_config.py").write_text("raise RuntimeError('the installed one')")
    monkeypatch.syspath_prepend(str(root / "site"))
    folder = old_folders.plain(root / "plain")
    load_experiment(folder)
    monkeypatch.setenv("PODS_CVPODS", "installed")
    with pytest.raises(ConfigError, match="the installed one"):
        load_experiment(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cvpods"]:
        monkeypatch.delitem(sys.modules, name)


def test_class_counts_are_found_beside_the_package_whatever_the_data_root_is_called(tmp_path, monkeypatch):
    data = old_folders.data_root(tmp_path / "lvis_data", images=2)
    monkeypatch.setenv("PODS_DATASETS", str(data))
    model = load_experiment(old_folders.aligned(tmp_path / "second", "first")).build_model()
    counts = model.data_parent.path / "datasets" / "lvis" / "num_shots_v1.0.json"
    assert counts.is_file()
    assert not (data / "lvis" / "num_shots_v1.0.json").exists()
    assert (model.data_parent.path / "datasets" / "lvis" / "lvis_v1_train.json").is_file()
    assert os.path.basename(model.data_parent.path / "datasets") == "datasets"


def test_the_factor_of_biases_leaves_those_of_norms_alone(root):
    """As D2SGD, which asks for the kind of a module before it asks for the name of a parameter."""
    words = ["SOLVER.OPTIMIZER.BIAS_LR_FACTOR", "2.0", "MODEL.FPN.NORM", "'GN'", "MODEL.WEIGHTS", "none"]
    experiment = load_experiment(old_folders.plain(root / "plain"), words)
    model = experiment.build_model()
    factors = rate_factors(model, experiment.config.schedule)
    doubled = {name for name, factor in factors.items() if factor == 2}
    assert doubled == {name for name, p in model.named_parameters() if name.endswith(".bias") and ".norm." not in name}
    assert any(".norm." in name for name, _ in model.named_parameters())

"""Checkpoints of cvpods in a folder's log are tested and resumed; names and shapes are those of the published files."""

import logging

import old_folders
import pytest
import torch
from shared import shared
from torch import nn

from cvpods_ext.compat import folder as old_folder
from cvpods_ext.compat.configs import RCNNFPNConfig
from cvpods_ext.compat.rcnn import GeneralizedRCNN
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.infer import weights_to_test
from cvpods_ext.errors import WeightsError


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(old_folders.data_root(tmp_path / "datasets", images=2)))
    folder = old_folders.plain(tmp_path / "plain")
    (folder / "log").mkdir()
    return load_experiment(folder)


def checkpoint_of_cvpods(model: nn.Module, iteration: int) -> dict:
    """One optimizer group for each tensor that trains, numbered in the order of the modules."""
    numbered = [p for module in model.modules() for p in module.parameters(recurse=False) if p.requires_grad]
    optimizer = torch.optim.SGD([{"params": [p]} for p in numbered], lr=0.02, momentum=0.9)
    for parameter in numbered:
        optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"last_epoch": iteration},
        "iteration": iteration,
    }


def momentum_by_name(model, optimizer):
    return {name: optimizer["state"][i]["momentum_buffer"] for i, name in enumerate(model)}


def test_final_weights_of_cvpods_are_tested_until_there_is_a_run_of_ours(experiment):
    log = experiment.folder / "log"
    with pytest.raises(WeightsError, match="nothing is trained yet"):
        weights_to_test(experiment, None)
    for name in ("model_iter_0005000.pth", "model_iter_0010000.pth"):
        (log / name).write_bytes(b"x")
    assert weights_to_test(experiment, None) == log / "model_iter_0010000.pth"
    (log / "model_final.pth").write_bytes(b"x")
    assert weights_to_test(experiment, None) == log / "model_final.pth"
    experiment.output.mkdir()
    (experiment.output / "model_final.pth").write_bytes(b"x")
    assert weights_to_test(experiment, None) == experiment.output / "model_final.pth"
    named = load_experiment(experiment.folder, ["MODEL.WEIGHTS", "log/model_iter_0005000.pth"])
    assert weights_to_test(named, None) == log / "model_iter_0005000.pth"


def test_a_checkpoint_is_taken_over_with_iteration_and_momentum(experiment):
    log = experiment.folder / "log"
    model = experiment.build_model()
    saved = checkpoint_of_cvpods(model, iteration=4999)
    torch.save(saved, log / "model_iter_0005000.pth")
    (log / "last_checkpoint").write_text("/data/Outputs/model_logs/plain/model_iter_0005000.pth")
    experiment.take_over_earlier_run()
    state = CheckpointFolder(experiment.output).latest()
    assert state is not None
    assert state["iteration"] == 5000
    assert all(torch.equal(value, saved["model"][name]) for name, value in state["model"].items())
    numbered = [name for name, p in _in_module_order(model) if p.requires_grad]
    expected = momentum_by_name(numbered, saved["optimizer"])
    ours = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(ours) == len(expected) > 40
    for i, name in enumerate(ours):
        assert torch.equal(state["optimizer"]["state"][i]["momentum_buffer"], expected[name]), name


def _in_module_order(model):
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{prefix}.{name}", parameter


def test_an_optimizer_that_does_not_fit_is_left_out_with_a_warning(experiment, caplog):
    log = experiment.folder / "log"
    saved = checkpoint_of_cvpods(experiment.build_model(), iteration=9)
    saved["optimizer"]["param_groups"].pop()
    torch.save(saved, log / "model_final.pth")
    (log / "last_checkpoint").write_text("model_final.pth")
    with caplog.at_level(logging.WARNING):
        experiment.take_over_earlier_run()
    assert "its momentum is left out" in caplog.text
    state = CheckpointFolder(experiment.output).latest()
    assert state is not None
    assert state["optimizer"]["state"] == {}


def test_without_last_checkpoint_there_is_nothing_to_take_over(experiment):
    torch.save({"model": {}, "iteration": 9}, experiment.folder / "log" / "model_final.pth")
    experiment.take_over_earlier_run()
    assert not experiment.output.exists()


def test_a_checkpoint_of_other_classes_is_refused(experiment):
    saved = checkpoint_of_cvpods(experiment.build_model(), iteration=9)
    saved["model"]["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(81, 32)
    torch.save(saved, experiment.folder / "log" / "model_final.pth")
    (experiment.folder / "log" / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(WeightsError, match=r"81, 32\] in the file, \[1204, 32\] in the model"):
        experiment.take_over_earlier_run()


LISTS = {
    "mask_rcnn.res50.fpn.lvis.multiscale.1x": ("plain", 1230),
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.1x": ("cosine", 1230),
    "mask_rcnn.res50.fpn.lvis.multiscale.disalign.1x": ("disalign", 1230),
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.disalign.1x": ("cosine.disalign", 1230),
    "mask_rcnn.res50.fpn.lvis.multiscale.rfs.1x": ("plain", 1230),
    "mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.1x": ("cosine", 1230),
    "mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.disalign.1x": ("cosine.disalign", 1230),
    "mask_rcnn.res50.fpn.lvisv1.multiscale.1x": ("plain", 1203),
    "mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.1x": ("plain", 1203),
}
WRITERS = {
    "plain": old_folders.plain,
    "cosine": old_folders.cosine,
    "disalign": lambda folder: old_folders.aligned(folder, "first"),
    "cosine.disalign": lambda folder: old_folders.aligned(folder, "first", "Cosine"),
}
PUBLISHED_SIZES = RCNNFPNConfig()


@pytest.mark.parametrize("published", LISTS)
def test_names_shapes_and_what_trains_equal_the_published_lists(published, tmp_path):
    kind, classes = LISTS[published]
    lines = shared(f"golden/cvpods_keys/{published}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    experiment = old_folder.load(WRITERS[kind](tmp_path / "folder"))
    config = experiment.settings_of_network()
    for section in ("FPN", "RPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD"):
        config.MODEL[section].merge(PUBLISHED_SIZES.MODEL[section])
    config.MODEL.RESNETS.DEPTH, config.MODEL.ROI_HEADS.NUM_CLASSES = 50, classes
    with experiment.namespace.inside(), torch.device("meta"):
        model = experiment.namespace.load("net").build_model(config)
    assert isinstance(model, GeneralizedRCNN)
    assert {name: str(tuple(value.shape)) for name, value in model.state_dict().items()} == {
        row[0]: row[1] for row in rows
    }
    training = {name for name, p in model.named_parameters() if p.requires_grad}
    assert training == {row[0] for row in rows if row[-1] == "train"}

"""An old folder and a network of our builders give the same losses, gradients and detections with the same weights."""

import old_folders
import pytest
import torch

from cvpods_ext.config.detection import Detector
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.frozen_norms import measure_frozen_norms
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.necks.fpn import resnet_fpn
from cvpods_ext.tasks.detection import TASK

CLASSES, WIDTH = 1203, 32
FOLDERS = {
    "plain": lambda root: old_folders.plain(root / "old"),
    "rfs": lambda root: old_folders.repeated(root / "old"),
    "cosine": lambda root: old_folders.cosine(root / "old"),
    "disalign": lambda root: old_folders.aligned(root / "old", "first"),
    "cosine.disalign": lambda root: old_folders.aligned(root / "old", "first", "Cosine", "fast_rcnn"),
}


def ours(kind, experiment):
    classifier = CosineClassifier(WIDTH, CLASSES) if "cosine" in kind else LinearClassifier(WIDTH, CLASSES)
    loss = SoftmaxCrossEntropy()
    if "disalign" in kind:
        classifier = DisAlign(classifier)
        loss = GroupReweightedCrossEntropy(class_counts(experiment.config.data, experiment.folder), exponent=0.8)
    settings = Detector(
        proposals_per_level=(60, 60),
        proposals=(40, 20),
        rois_per_image=32,
        box_fc=(WIDTH, WIDTH),
        mask_convs=1,
        mask_width=16,
        score_threshold=0.0001,
    )
    box = BoxBranch(classifier=classifier, loss=loss)
    return mask_rcnn_fpn(settings, CLASSES, resnet_fpn(18, channels=16), box)


def twins(kind, root, monkeypatch):
    """An old model, ours with its weights, and a batch of the folder's loader."""
    monkeypatch.setenv("PODS_DATASETS", str(old_folders.data_root(root / "datasets", images=4)))
    experiment = load_experiment(FOLDERS[kind](root), smoke=True)
    torch.manual_seed(0)
    old = experiment.build_model().train()
    for name, parameter in old.named_parameters():
        if "logit_" in name:  # otherwise DisAlign starts as the identity
            parameter.data += torch.rand_like(parameter)
    batch = next(TASK.training_batches(experiment, old))
    measure_frozen_norms(old, batch)
    new = ours(kind, experiment).train()
    new.load_state_dict(old.state_dict())
    for (name, mine), (other, theirs) in zip(new.named_parameters(), old.named_parameters(), strict=True):
        assert name == other
        mine.requires_grad_(theirs.requires_grad)
    return old, new, batch


def losses_and_gradients(model, batch):
    torch.manual_seed(1)
    losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", FOLDERS)
def test_losses_and_gradients_are_equal(kind, tmp_path, monkeypatch):
    old, new, batch = twins(kind, tmp_path, monkeypatch)
    theirs, their_gradients = losses_and_gradients(old, batch)
    mine, my_gradients = losses_and_gradients(new, batch)
    assert list(theirs) == list(mine)
    assert ("disalign" in kind) == (list(theirs) == ["loss_cls"])
    for name, value in theirs.items():
        torch.testing.assert_close(value, mine[name], rtol=1e-6, atol=1e-7)
    assert their_gradients.keys() == my_gradients.keys()
    for name, value in their_gradients.items():
        torch.testing.assert_close(value, my_gradients[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["plain", "cosine.disalign"])
def test_detections_are_equal(kind, tmp_path, monkeypatch):
    old, new, batch = twins(kind, tmp_path, monkeypatch)
    with torch.no_grad():
        theirs, mine = old.eval().detect(batch), new.eval().detect(batch)
    assert sum(len(one.labels) for one in theirs) > 0
    for a, b in zip(theirs, mine, strict=True):
        assert torch.equal(a.labels, b.labels)
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(a.mask_probabilities, b.mask_probabilities, rtol=1e-4, atol=1e-5)

"""A pass that only observes: LogN gets the moments of all proposals' logits, the detector stays as it was."""

import pytest
import torch
from tiny_experiment import make_data

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.data.detection_loader import training_batches
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.fit_statistics import fit_statistics
from cvpods_ext.errors import ConfigError

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI
from cvpods_ext.config.schema import DatasetFiles

config = override(
    MINI,
    data=dict(
        train=DatasetFiles(annotations={train!r}, images={images!r}),
        test=DatasetFiles(annotations={train!r}, images={images!r}),
        train_sizes=(64,),
    ),
    model=dict(init="none", init_skip=()),
    schedule=dict(fit="statistics", iters=2, batch_size=4, images_per_device=2),
)
"""

NET = """
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.posthoc import ExactLogN, RunningLogN
from cvpods_ext.modeling.necks.fpn import narrow_resnet_fpn


def build_model(cfg):
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(
        cfg.model, num_classes=classes, backbone=narrow_resnet_fpn(), box=BoxBranch(classifier={classifier})
    )
"""


@pytest.fixture
def write(tmp_path):
    """Returns a function that makes an experiment whose box classifier is the given expression."""
    data = make_data(tmp_path)

    def experiment(classifier, *overrides):
        folder = tmp_path / f"experiment{len(list(tmp_path.glob('experiment*')))}"
        folder.mkdir()
        (folder / "config.py").write_text(CONFIG.format(train=str(data.train), images=str(data.root / "coco")))
        (folder / "net.py").write_text(NET.format(classifier=classifier))
        return load_experiment(folder, overrides)

    return experiment


@pytest.fixture
def trained(write, tmp_path):
    """A file with the weights of a detector without calibration."""
    torch.manual_seed(0)
    model = write("LinearClassifier(cfg.model.box_features, classes)").build_model()
    torch.save({"model": model.state_dict()}, tmp_path / "trained.pth")
    return tmp_path / "trained.pth"


LOGN = "ExactLogN(LinearClassifier(cfg.model.box_features, classes), classes)"


def by_hand(experiment, weights):
    """Mean and deviation of the logits of the proposals of the same four batches, read outside of the engine."""
    model = experiment.build_model()
    model.load_state_dict(torch.load(weights)["model"], strict=False)
    model.eval()
    logits = []
    model.roi_heads.box_predictor.cls_score.register_forward_hook(lambda *call: logits.append(call[2].double()))
    batches = training_batches(experiment.config, experiment.folder)
    with torch.inference_mode():
        for _ in range(4):
            model(next(batches))
    rows = torch.cat(logits)[:, :-1]
    return len(rows), rows.mean(dim=0), rows.var(dim=0, correction=0)


def test_the_moments_are_those_of_all_proposals_and_nothing_else_changes(write, trained):
    experiment = write(LOGN, f"model.init={trained}")
    fit_statistics(experiment, torch.device("cpu"))
    state = torch.load(CheckpointFolder(experiment.output).weights())["model"]
    model = experiment.build_model()
    model.load_state_dict(state)
    seen, mean, variance = by_hand(experiment, trained)
    predictor = model.roi_heads.box_predictor
    ours = predictor.moments()
    assert predictor.observed == seen
    torch.testing.assert_close(ours[0], mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours[1], variance, rtol=1e-7, atol=1e-12)
    before = torch.load(trained)["model"]
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_running_statistics_are_fitted_by_the_same_pass(write, trained):
    classifier = "RunningLogN(LinearClassifier(cfg.model.box_features, classes), classes, momentum=0.5)"
    experiment = write(classifier, f"model.init={trained}")
    fit_statistics(experiment, torch.device("cpu"))
    state = torch.load(CheckpointFolder(experiment.output).weights())["model"]
    assert state["roi_heads.box_predictor.running_mean"].any()
    assert (state["roi_heads.box_predictor.running_variance"] < 1).all()  # of an untrained classifier, nearly 0
    before = torch.load(trained)["model"]
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_a_pass_that_is_done_is_not_repeated_on_resume(write, trained):
    experiment = write(LOGN, f"model.init={trained}")
    fit_statistics(experiment, torch.device("cpu"))
    path = CheckpointFolder(experiment.output).weights()
    written = path.stat().st_mtime_ns
    fit_statistics(experiment, torch.device("cpu"), resume=True)
    assert path.stat().st_mtime_ns == written


def test_a_detector_without_statistics_to_fit_is_an_error(write, trained):
    experiment = write("LinearClassifier(cfg.model.box_features, classes)", f"model.init={trained}")
    with pytest.raises(ConfigError, match=r"fits a calibration such as LogN, and net\.py builds none"):
        fit_statistics(experiment, torch.device("cpu"))


def test_an_untrained_detector_is_an_error(write):
    with pytest.raises(ConfigError, match=r"name it in model\.init"):
        fit_statistics(write(LOGN), torch.device("cpu"))


COUNTING = """
import torch
from cvpods_ext.modeling.calibration import Calibration


class CountsRows(Calibration):
    accumulating = False

    def __init__(self, classifier):
        super().__init__(classifier)
        self.register_buffer("rows", torch.zeros(()))

    def forward(self, features):
        logits = self.cls_score(features)
        if self.accumulating:
            self.accumulate(logits)
        return logits

    def accumulate(self, logits):
        self.rows += len(logits)

    def synchronize(self):
        self.rows *= 10


"""


def test_any_calibration_that_accumulates_and_synchronises_is_fitted(write, trained):
    experiment = write("CountsRows(LinearClassifier(cfg.model.box_features, classes))", f"model.init={trained}")
    net = experiment.folder / "net.py"
    net.write_text(COUNTING + net.read_text())
    fit_statistics(experiment, torch.device("cpu"))
    state = torch.load(CheckpointFolder(experiment.output).weights())["model"]
    seen, *_ = by_hand(write("LinearClassifier(cfg.model.box_features, classes)", f"model.init={trained}"), trained)
    assert state["roi_heads.box_predictor.rows"] == 10 * seen > 0

"""What an old folder asks for and is not supported ends in one message: what, where, and how to go on."""

import old_folders
import pytest

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError

REFUSED = {
    "key points": ("KEYPOINT_ON=True,", {}, "MODEL.KEYPOINT_ON is True: key points are not built here"),
    "loaded proposals": ("LOAD_PROPOSALS=True,", {}, "MODEL.LOAD_PROPOSALS is True"),
    "cluster suppression": ('NMS_TYPE="cluster",', {}, "MODEL.NMS_TYPE is 'cluster'; possible are normal, softnms-l"),
    "another sampler": ("", {"loader": 'SAMPLER_TRAIN="ClassAware"'}, "DATALOADER.SAMPLER_TRAIN is 'ClassAware'"),
    "test-time augmentation": ("", {"after": "config.TEST.AUG.ENABLED = True"}, "set TEST.AUG.ENABLED False"),
    "precise batch norm": ("", {"after": "config.TEST.PRECISE_BN.ENABLED = True"}, "TEST.PRECISE_BN.ENABLED"),
    "clipping each tensor": (
        "",
        {"after": "config.SOLVER.CLIP_GRADIENTS.ENABLED = True"},
        "clips each tensor by value.*schedule.clip_norm=35",
    ),
    "LARS": ("", {"after": 'config.SOLVER.OPTIMIZER.NAME = "LARS_SGD"'}, "SOLVER.OPTIMIZER.NAME is 'LARS_SGD'"),
    "another schedule": ("", {"after": 'config.SOLVER.LR_SCHEDULER.NAME = "OneCycle"'}, "NAME is 'OneCycle'"),
    "epochs": ("", {"after": "config.SOLVER.LR_SCHEDULER.MAX_EPOCH = 12"}, "MAX_EPOCH is 12.*trained for iterations"),
    "another augmentation": (
        "",
        {"after": 'config.INPUT.AUG.TRAIN_PIPELINES += [("RandomCrop", dict(crop=3))]'},
        "INPUT.AUG.TRAIN_PIPELINES has RandomCrop",
    ),
    "several test sets": ("", {"after": 'config.DATASETS.TEST = ("a", "b")'}, r"one data set is possible.*\('NAME',\)"),
    "a deep stem": ("", {"after": "config.MODEL.RESNETS.DEEP_STEM = True"}, "DEEP_STEM is True: the stem is one 7x7"),
    "smooth L1": ("", {"after": "config.MODEL.RPN.SMOOTH_L1_BETA = 0.11"}, "box losses are plain L1"),
    "other anchors": (
        "",
        {"after": "config.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]"},
        "anchors have the three published shapes",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_setting_that_cannot_be_kept_is_refused_with_its_key_and_a_remedy(what, tmp_path):
    model, places, message = REFUSED[what]
    folder = old_folders.plain(tmp_path / "plain", model=model, **places)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load_experiment(folder)


def test_all_that_is_refused_is_said_at_once(tmp_path):
    after = "config.TEST.AUG.ENABLED = True\nconfig.SOLVER.CLIP_GRADIENTS.ENABLED = True"
    with pytest.raises(ConfigError) as caught:
        load_experiment(old_folders.plain(tmp_path / "plain", model="KEYPOINT_ON=True,", after=after))
    assert all(key in str(caught.value) for key in ("TEST.AUG", "CLIP_GRADIENTS", "KEYPOINT_ON"))


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("from cvpods.modeling.roi_heads.cascade_rcnn import CascadeROIHeads", "cascade_mask_rcnn.res50"),
        ("from cvpods.modeling.roi_heads import CascadeROIHeads", "cascade_mask_rcnn.res50"),
        ("from cvpods.modeling.meta_arch.retinanet import RetinaNet", "dino.res50"),
        ("from cvpods.layers import DeformConv", "mask_rcnn.res50"),
    ],
)
def test_an_import_that_is_not_here_is_named_with_the_nearest_folder(line, nearest, tmp_path):
    folder = old_folders.plain(tmp_path / "plain")
    text = (folder / "net.py").read_text()
    (folder / "net.py").write_text(f"{text}\n{line}\n")
    experiment = load_experiment(folder)
    with pytest.raises(ConfigError) as caught:
        experiment.build_model()
    message = str(caught.value)
    assert f"net.py:{len(text.splitlines()) + 2}: `{line}` asks for a part of cvpods that is not here" in message
    assert f"The nearest folder of this package is playground/lvis1.0/{nearest}" in message or nearest in message
    assert "docs/old_folders.md" in message


def test_a_missing_package_of_others_is_named(tmp_path):
    folder = old_folders.plain(tmp_path / "plain", imports="import no_such_package_of_theirs")
    with pytest.raises(ConfigError, match=r"config\.py:\d+: import no_such_package_of_theirs: .*Install it"):
        load_experiment(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["MODEL.ROI_HEADS.SCORE_TRESH", "0.1"],
            "unknown key 'MODEL.ROI_HEADS.SCORE_TRESH': did you mean 'MODEL",
        ),
        (["MODEL.MASK_ON"], "the override MODEL.MASK_ON has no value"),
        (["MODEL.MASK_ON", "'x'"], "MODEL.MASK_ON is True, so 'x' cannot be its value"),
        (["model.box_fc=(8,8)"], "model.box_fc cannot be changed for an old folder"),
    ],
)
def test_an_override_that_cannot_be_is_refused(words, message, tmp_path):
    folder = old_folders.plain(tmp_path / "plain")
    with pytest.raises(ConfigError, match=message):
        load_experiment(folder, words).build_model()


def test_a_net_without_build_model_and_a_model_of_another_kind_are_refused(tmp_path):
    folder = old_folders.plain(tmp_path / "plain")
    (folder / "net.py").write_text("import torch\n\ndef build_model(cfg):\n    return torch.nn.Linear(2, 2)\n")
    with pytest.raises(ConfigError, match="gives a Linear; this engine trains a GeneralizedRCNN"):
        load_experiment(folder).build_model()
    (folder / "net.py").write_text("")
    with pytest.raises(ConfigError, match="does not define build_model"):
        load_experiment(folder).build_model()


def test_a_builder_that_was_not_set_is_named(tmp_path):
    folder = old_folders.plain(tmp_path / "plain")
    net = (folder / "net.py").read_text().replace("cfg.build_roi_heads = build_roi_heads", "pass")
    (folder / "net.py").write_text(net)
    with pytest.raises(ConfigError, match=r"must set cfg\.build_roi_heads to a function"):
        load_experiment(folder).build_model()


def test_a_data_set_without_a_name_here_says_how_own_data_are_given(tmp_path):
    folder = old_folders.plain(tmp_path / "plain", after='config.DATASETS.TRAIN = ("birds_train",)')
    with pytest.raises(ConfigError, match=r"unknown data set 'birds_train'.*DatasetFiles"):
        load_experiment(folder).build_model()

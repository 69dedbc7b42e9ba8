"""From net.py of an old folder to a model that the engine trains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import nn

from cvpods_ext.compat.class_count_files import DataParent
from cvpods_ext.compat.configs import AttributeDict, flat
from cvpods_ext.compat.imagenet import Classification
from cvpods_ext.compat.namespace import Namespace
from cvpods_ext.compat.rcnn import GeneralizedRCNN
from cvpods_ext.compat.translate_classification import OldClassification
from cvpods_ext.compat.uncalled import require_called
from cvpods_ext.data import catalog, classification
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.layers import BatchNorm2d

if TYPE_CHECKING:
    from cvpods_ext.compat.folder import OldExperiment


logger = logging.getLogger(__name__)

_READ_BEFORE = (
    "SOLVER.",
    "DATASETS.",
    "DATALOADER.",
    "INPUT.",
    "TRAINER.",
    "TEST.EVAL_PERIOD",
    "SEED",
    "MODEL.WEIGHTS",
)
# What the network of a task is, and the module of cvpods.modeling.meta_arch that has it.
_KINDS: dict[str, tuple[type, str]] = {
    "detection": (GeneralizedRCNN, "rcnn"),
    "classification": (Classification, "imagenet"),
}


def build(experiment: OldExperiment, namespace: Namespace, config: AttributeDict) -> nn.Module:
    """Call `build_model(config)` of net.py. ConfigError for what is no network of ours or has other classes."""
    folder = experiment.folder
    _check_classes(experiment, config)
    parent = DataParent(experiment.config.data, folder)
    namespace.set_root(parent.path)
    before = {key: repr(value) for key, value in flat(config).items()}
    with namespace.inside():
        net = namespace.load("net")
        build_model = getattr(net, "build_model", None)
        if not callable(build_model):
            raise ConfigError(f"{folder / 'net.py'} does not define build_model(cfg)")
        model: Any = build_model(config)
    wanted, module = _KINDS[experiment.config.task]
    if not isinstance(model, wanted):
        raise ConfigError(
            f"build_model of {folder / 'net.py'} gives a {type(model).__name__}; this engine trains a "
            f"{wanted.__name__} of cvpods.modeling.meta_arch.{module}. To move another network: docs/old_folders.md"
        )
    require_called(model)
    if not getattr(experiment.config.model, "frozen_statistics_move", True):
        for norm in model.modules():
            if isinstance(norm, BatchNorm2d):
                norm.moves_when_frozen = False
    model.changed_settings = _changed(before, config)
    if late := [key for key in model.changed_settings if key.startswith(_READ_BEFORE)]:
        logger.warning("net.py changes %s, which was read before and has no effect", ", ".join(late))
    model.during_a_step = namespace.names
    model.data_parent = parent
    return model


def _changed(before: dict[str, str], config: AttributeDict) -> list[str]:
    """Settings, other than builders, that are not as they were."""
    now = {key: repr(value) for key, value in flat(config).items() if not callable(value)}
    return sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))


def _check_classes(experiment: OldExperiment, config: AttributeDict) -> None:
    if isinstance(experiment.config, OldClassification):
        section, count = "RESNETS", classification.num_classes(experiment.config.data, experiment.folder)
    else:
        section, count = "ROI_HEADS", catalog.num_classes(experiment.config.data, experiment.folder)
    classes = config.MODEL[section].NUM_CLASSES
    if classes != count:
        raise ConfigError(
            f"MODEL.{section}.NUM_CLASSES is {classes}, and the training set has {count} classes. Set "
            f"MODEL.{section}.NUM_CLASSES {count} for these data; a detector of {classes} classes is carried over by "
            "`pods_weights convert --from-categories --to-categories`"
        )

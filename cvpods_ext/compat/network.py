"""From net.py of an old folder to a model that the engine trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from cvpods_ext.compat.class_count_files import DataParent
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.namespace import Namespace
from cvpods_ext.compat.rcnn import GeneralizedRCNN
from cvpods_ext.data import catalog
from cvpods_ext.errors import ConfigError

if TYPE_CHECKING:
    from cvpods_ext.compat.folder import OldExperiment


def build(experiment: OldExperiment, namespace: Namespace, config: AttributeDict) -> nn.Module:
    """Call `build_model(config)` of net.py. ConfigError for what is no network of ours or has other classes."""
    folder, data = experiment.folder, experiment.config.data
    _check_classes(experiment, config)
    parent = DataParent(data, folder)
    namespace.set_root(parent.path)
    with namespace.inside():
        net = namespace.load("net")
        build_model = getattr(net, "build_model", None)
        if not callable(build_model):
            raise ConfigError(f"{folder / 'net.py'} does not define build_model(cfg)")
        model: Any = build_model(config)
    if not isinstance(model, GeneralizedRCNN):
        raise ConfigError(
            f"build_model of {folder / 'net.py'} gives a {type(model).__name__}; this engine trains a GeneralizedRCNN "
            "of cvpods.modeling.meta_arch.rcnn. To move another network: docs/old_folders.md"
        )
    model.during_a_step = namespace.names
    model.data_parent = parent
    return model


def _check_classes(experiment: OldExperiment, config: AttributeDict) -> None:
    classes, data = config.MODEL.ROI_HEADS.NUM_CLASSES, experiment.config.data
    known = catalog.num_classes(data, experiment.folder)
    if classes != known:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {classes}, and the training set has {known} categories. Set "
            f"MODEL.ROI_HEADS.NUM_CLASSES {known} for these data; a checkpoint of {classes} classes is carried over by "
            "`pods_weights convert --from-categories --to-categories`"
        )

"""The detector as old folders build it: our RCNN from the builders that net.py hung on the config."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from cvpods_ext.compat.backbone import ShapeSpec
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.detection.postprocess import RawDetections
from cvpods_ext.modeling.detection.rcnn import RCNN
from cvpods_ext.structures import Batch


class GeneralizedRCNN(RCNN):
    """Calls `cfg.build_backbone`, `cfg.build_proposal_generator` and `cfg.build_roi_heads`; ConfigError without one.

    Batches and results are those of this package. `during_a_step` is what the folder's modules need around them: its
    functions may import while they run.
    """

    def __init__(self, cfg: AttributeDict) -> None:
        builders = [_builder(cfg, name) for name in ("build_backbone", "build_proposal_generator", "build_roi_heads")]
        backbone = builders[0](cfg, ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
        shapes = backbone.output_shape()
        super().__init__(
            backbone=backbone,
            proposal_generator=builders[1](cfg, shapes),
            roi_heads=cast(Any, builders[2](cfg, shapes)),
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
        )
        self.levels = list(cfg.MODEL.RPN.IN_FEATURES)
        self.changed_settings: list[str] = []  # by net.py, of the config that it was given
        self.data_parent: object = None  # keeps the files that the folder reads, see `class_count_files`
        self.during_a_step: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """As of our own detectors."""
        with self.during_a_step():
            losses = super().losses(batch)
        # cvpods adds up whatever has a gradient, this engine what is called a loss
        return {name if name.startswith("loss") or not value.requires_grad else f"loss_{name}": value
                for name, value in losses.items()}  # fmt: skip

    def detect(self, batch: Batch) -> list[RawDetections]:
        """As of our own detectors."""
        with self.during_a_step():
            return super().detect(batch)

    def _for_heads(self, features: Any) -> list[Tensor]:
        """Maps in order; a backbone of the folder's own may give them by name."""
        return super()._for_heads([features[name] for name in self.levels] if isinstance(features, dict) else features)


def _builder(cfg: AttributeDict, name: str) -> Callable[..., Any]:
    found = cfg.get(name)
    if not callable(found):
        raise ConfigError(f"build_model of net.py must set cfg.{name} to a function before it calls GeneralizedRCNN")
    return found

"""The sections that semantic segmentation adds to a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cvpods_ext.config.schema import Config, Data, DatasetFiles, Model, Test


@dataclass(frozen=True, kw_only=True)
class LabelMapFiles(DatasetFiles):
    """A data set of one's own: `images` and `annotations` are folders, every image has a PNG of the same name there.

    `classes` is a text file with one class name a line, in the order of the PNG values, or a CSV with the columns
    value and name. With `reduce_zero_label` the PNG value 0 means unlabelled and classes start at 1, as in ADE20K;
    255 is always unlabelled. Relative paths start at the data root.
    """

    classes: str
    reduce_zero_label: bool = False


@dataclass(frozen=True, kw_only=True)
class SegmentationData(Data):
    """How an image reaches the network: sizes in pixels, augmentation."""

    train: str | LabelMapFiles = "ade20k_train"
    test: str | LabelMapFiles = "ade20k_val"
    crop_side: int = 512  # of training crops, and of the windows of a test
    train_short: int = 512  # images are fitted into (long, short) times a number from 0.5 to 2, then cropped
    train_long: int = 2048
    flip_probability: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Segmenter(Model):
    """The network's sizes, and in which sizes it looks at a test image."""

    drop_path: float = 0.15  # of the transformer's last block
    channels: int = 768  # of the decoder
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4  # of the auxiliary head's loss
    test_mode: Literal["slide", "whole"] = "slide"  # windows over the image, or the image shrunk into one
    test_short: int = 512  # an image is fitted into (long, short)
    test_long: int = 2048
    test_stride: int = 341  # pixels between windows
    test_ratios: tuple[float, ...] = (1.0,)  # of several scales, see TestScales; the longer side is then free
    test_flip: bool = False


@dataclass(frozen=True, kw_only=True)
class SegmentationTest(Test):
    """What is measured, and which classes are rare."""

    metrics: tuple[str, ...] = ("sem_seg",)
    rare_below: float = 0.0005  # share of the labelled training pixels
    frequent_from: float = 0.005
    resamples: int = 1000  # of the images, for the intervals of the metrics; 0 gives none


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(Config):
    """One experiment in semantic segmentation."""

    task: ClassVar[str] = "segmentation"

    data: SegmentationData = field(default_factory=SegmentationData)
    model: Segmenter = field(default_factory=Segmenter)
    test: SegmentationTest = field(default_factory=SegmentationTest)

    def smoke_settings(self) -> dict[str, Any]:
        """Ten steps on eight images in crops of at most 128 pixels."""
        settings, data = super().smoke_settings(), self.data
        side = min(128, data.crop_side)
        small = {"short": side, "long": 4 * side}
        settings["data"] |= {"crop_side": side, **{f"train_{name}": value for name, value in small.items()}}
        settings["model"] = {**{f"test_{name}": value for name, value in small.items()}, "test_stride": side * 2 // 3}
        return settings

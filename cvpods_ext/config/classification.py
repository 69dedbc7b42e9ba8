"""The sections that image classification adds to a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cvpods_ext.config.schema import Config, Data, DatasetFiles, Model, Test
from cvpods_ext.errors import ConfigError

CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)  # RGB; EVA-02's files were trained with these
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)


@dataclass(frozen=True, kw_only=True)
class ImageFiles(DatasetFiles):
    """A data set of one's own: one folder per class below `images`, or a list of files and labels.

    `annotations` is such a list, one "path label" a line, paths below `images`, labels from 0; "" is one folder per
    class. `classes` is a text file with a class a line in label order: its folder, or a tab and a name behind it; ""
    takes the training folders in the order of their names, or the numbers of the training list. A test list with
    classes of its own is matched with the training set by these names, not by number. Relative paths start at the data
    root.
    """

    annotations: str = ""
    classes: str = ""


@dataclass(frozen=True, kw_only=True)
class ClassificationData(Data):
    """How an image reaches the network: sizes in pixels, augmentation."""

    train: str | ImageFiles = "imagenet_train"
    test: str | ImageFiles = "imagenet_val"
    image_side: int = 224
    crop_area: tuple[float, float] = (0.08, 1.0)  # of a training crop, as a share of the image
    flip_probability: float = 0.5
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    auto_augment: str = ""  # a policy in timm's notation, such as rand-m9-mstd0.5-inc1
    test_resize: Literal["crop", "squash"] = "crop"  # the shorter side fitted, the middle taken; or both sides fitted
    crop_ratio: float = 1.0  # of a test image's shorter side that the middle crop keeps
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # where images are resized, in training and test

    def __post_init__(self) -> None:
        low, high = self.crop_area
        if not 0 < low <= high <= 1 or not 0 < self.crop_ratio <= 1 or not 0 <= self.flip_probability <= 1:
            raise ConfigError(
                f"data.crop_area={self.crop_area} must ascend within (0, 1], data.crop_ratio={self.crop_ratio} lie in "
                f"(0, 1] and data.flip_probability={self.flip_probability} in [0, 1]"
            )
        if min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise ConfigError(f"data.color_jitter={self.color_jitter} must not be negative, and its hue at most 0.5")
        if self.image_side < 1:
            raise ConfigError(f"data.image_side must be at least 1, got {self.image_side}")


@dataclass(frozen=True, kw_only=True)
class Classifier(Model):
    """What regularises the network, and how images are mixed in training."""

    pixel_mean: tuple[float, float, float] = CLIP_MEAN
    pixel_std: tuple[float, float, float] = CLIP_STD
    drop_path: float = 0.0  # of the transformer's last block
    smoothing: float = 0.0  # of labels
    mixup: float = 0.0  # alpha of the beta distribution; 0 is off
    cutmix: float = 0.0  # the same; where both are on, one is drawn for a batch

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1 or not 0 <= self.drop_path < 1 or min(self.mixup, self.cutmix) < 0:
            raise ConfigError(
                f"model.smoothing={self.smoothing} and model.drop_path={self.drop_path} must lie in [0, 1), "
                f"model.mixup={self.mixup} and model.cutmix={self.cutmix} must not be negative"
            )


@dataclass(frozen=True, kw_only=True)
class ClassificationTest(Test):
    """What is measured, and which classes are few-shot (Liu et al., https://arxiv.org/abs/1904.05160)."""

    metrics: tuple[str, ...] = ("classification",)
    many_above: int = 100  # training images of a many-shot class, more than so many
    few_below: int = 20  # and of a few-shot class, fewer than so many
    resamples: int = 1000  # of the images, for the intervals of the metrics; 0 gives none
    images_per_batch: int = 32  # that a process tests at once; the last digits of scores may depend on it

    def __post_init__(self) -> None:
        if not 0 <= self.few_below <= self.many_above + 1 or self.resamples < 0 or self.images_per_batch < 1:
            raise ConfigError(
                f"test.few_below={self.few_below} must lie in [0, test.many_above + 1 = {self.many_above + 1}], "
                f"test.resamples={self.resamples} must not be negative, and "
                f"test.images_per_batch={self.images_per_batch} must be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(Config):
    """One experiment in image classification."""

    task: ClassVar[str] = "classification"

    data: ClassificationData = field(default_factory=ClassificationData)
    model: Classifier = field(default_factory=Classifier)
    test: ClassificationTest = field(default_factory=ClassificationTest)

    def smoke_settings(self) -> dict[str, Any]:
        """Ten steps on eight images of at most 112 pixels, a multiple of patches of 14 and 16."""
        settings = super().smoke_settings()
        settings["data"] |= {"image_side": min(112, self.data.image_side)}
        return settings

"""The sections that detection and instance segmentation add to a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cvpods_ext.config.detection_protocol import Protocol, protocol_of
from cvpods_ext.config.schema import Config, Data, DatasetFiles, Model, Test
from cvpods_ext.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DetectionData(Data):
    """How an image reaches the detector: sizes in pixels, augmentation, order."""

    train: str | DatasetFiles | tuple[DatasetFiles, ...] = "lvis_v1_train"  # several files are joined by category name
    test: str | DatasetFiles = "lvis_v1_val"
    channels: Literal["RGB", "BGR"] = "BGR"  # BGR for the MSRA weights
    train_on_empty_images: bool = False  # images without annotations teach what is not an object
    frequency_limits: tuple[int, int] = (10, 100)  # training images up to which a class is rare, and common, where the
    # data set does not say
    group_by_aspect: bool = True  # batches hold only wide or only tall images
    train_sizes: tuple[int, ...] = (640, 672, 704, 736, 768, 800)  # shortest edge, one is drawn per image
    train_max_size: int = 1333
    test_size: int = 800
    test_max_size: int = 1333
    lsj_side: int = 0  # large-scale jitter into squares of so many pixels instead of train_sizes; 0 is off
    lsj_range: tuple[float, float] = (0.1, 2.0)  # of the square that the image is fitted into before the crop
    flip_probability: float = 0.5


@dataclass(frozen=True, kw_only=True)
class DetectionModel(Model):
    """What counts as a detection of any detector; each kind of detector has a subclass with its sizes."""

    # The fields that decide detections, which results and predictions are kept with.
    decisive: ClassVar[tuple[str, ...]] = ("score_threshold", "detections_per_image")

    score_threshold: float = 0.0001  # a detection scores strictly more
    detections_per_image: int = 300  # the best over all classes


@dataclass(frozen=True, kw_only=True)
class QueryDetector(DetectionModel):
    """DINO: the sizes of its transformer and of its denoising part, which are those of all published models.

    The backbone and the loss are in net.py.
    """

    score_threshold: float = 0.0
    width: int = 256
    heads: int = 8
    hidden: int = 2048  # of the feed-forward layers
    encoder_layers: int = 6
    decoder_layers: int = 6
    levels: int = 4
    points: int = 4  # that a head looks at on each level
    queries: int = 900
    denoising_number: int = 100  # about so many positives and as many negatives per image; 0 is no denoising
    label_noise: float = 0.5  # a label is drawn anew with half of this probability
    box_noise: float = 1.0  # the largest shift of a positive's corner, in half sides

    def __post_init__(self) -> None:
        sizes = ("width", "heads", "hidden", "encoder_layers", "decoder_layers", "levels", "points", "queries")
        for name in (*sizes, "detections_per_image"):
            if (count := getattr(self, name)) < 1:
                raise ConfigError(f"model.{name} must be at least 1, got {count}")
        if self.width % 32 or self.width % self.heads:
            raise ConfigError(
                f"model.width={self.width} must be a multiple of 32, the groups of its norms, and of "
                f"model.heads={self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class Detector(DetectionModel):
    """A two-stage detector: the sizes of what follows its backbone, and what counts as a detection.

    The defaults are those of Mask R-CNN on a ResNet pyramid as published. The backbone, the classifier and the loss are
    in net.py. Pairs are (training, test); convolutions are 3x3.
    """

    decisive: ClassVar[tuple[str, ...]] = (
        *DetectionModel.decisive,
        "detections_per_class",
        "nms_threshold",
        "suppression",
        "maskness_threshold",
    )

    pixel_mean: tuple[float, float, float] = (103.53, 116.28, 123.675)  # in the order of data.channels
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    float32_heads: bool = False  # mixed precision ends at the pyramid

    # Proposals
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # pixels, one for each level of the pyramid
    rpn_convs: int = 1
    anchors_per_image: int = 256  # that are trained on
    anchor_foreground: float = 0.5  # their largest share that holds an object
    proposals_per_level: tuple[int, int] = (2000, 1000)  # before suppression
    proposals: tuple[int, int] = (1000, 1000)  # per image, after suppression

    # Boxes and masks
    rois_per_image: int = 512  # proposals that are trained on
    roi_foreground: float = 0.25  # their largest share that holds an object
    box_convs: tuple[int, ...] = ()  # their widths
    box_fc: tuple[int, ...] = (1024, 1024)  # widths of the fully connected layers
    class_agnostic_boxes: bool = False  # one box regression for all classes
    cascade_ious: tuple[float, ...] = (0.5, 0.6, 0.7)  # from which a box holds an object, in each stage of a cascade
    mask_convs: int = 4
    mask_width: int = 256
    head_norm: Literal["", "BN", "GN", "LN"] = ""  # behind each convolution of the box and mask head

    # Detections
    suppression: Literal["hard", "linear", "gaussian"] = "hard"  # hard NMS, or the decay of Soft-NMS
    nms_threshold: float = 0.5  # IoU from which hard NMS removes and linear Soft-NMS decays
    detections_per_image: int = 300  # the best over all classes; 0 is no limit
    detections_per_class: int = 0  # the best of each class of an image; 0 is no limit
    maskness_threshold: float = 0.0  # scores times the mean of the mask probabilities above it; 0 is off

    def __post_init__(self) -> None:
        for name in ("anchor_foreground", "roi_foreground"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ConfigError(f"model.{name} is a share between 0 and 1, got {share}")
        for name in ("anchors_per_image", "rois_per_image", "rpn_convs", "mask_width"):
            if (count := getattr(self, name)) < 1:
                raise ConfigError(f"model.{name} must be at least 1, got {count}")
        for name in ("box_fc", "cascade_ious", "anchor_sizes"):
            if not (values := getattr(self, name)) or min(values) <= 0:
                raise ConfigError(f"model.{name} needs one or more numbers above 0, got {values}")
        if list(self.cascade_ious) != sorted(self.cascade_ious) or self.cascade_ious[-1] > 1:
            raise ConfigError(
                f"model.cascade_ious must rise from stage to stage up to at most 1, got {self.cascade_ious}"
            )

    @property
    def box_features(self) -> int:
        """Width of what the box head hands to a classifier."""
        return self.box_fc[-1]


@dataclass(frozen=True, kw_only=True)
class DetectionTest(Test):
    """By which rules detections are evaluated."""

    metrics: tuple[str, ...] = ("bbox", "segm")
    evaluator: Literal["own", "hotcoco", "lvis"] = "own"  # lvis: the official packages, also for COCO; all agree
    max_detections: int = 300  # per image, over all classes; COCO's rules have a fixed limit per class

    def __post_init__(self) -> None:
        if self.max_detections < 1:
            raise ConfigError(f"test.max_detections must be at least 1, got {self.max_detections}")


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(Config):
    """One experiment in detection or instance segmentation."""

    task: ClassVar[str] = "detection"

    data: DetectionData = field(default_factory=DetectionData)
    model: DetectionModel = field(default_factory=Detector)
    test: DetectionTest = field(default_factory=DetectionTest)

    def protocol(self) -> str:
        """The protocol of a known test set; data of one's own have none."""
        rules = protocol_of(self.data.test) if isinstance(self.data.test, str) else None
        return rules.describe() if rules else ""

    def smoke_settings(self) -> dict[str, Any]:
        """Ten steps on eight images of at most 192 pixels; a transformer's square becomes one window of 16 patches."""
        settings, data = super().smoke_settings(), self.data
        side = min(256, data.lsj_side)
        settings["data"] |= {
            "train_sizes": (min(128, *data.train_sizes),),
            "train_max_size": min(192, data.train_max_size),
            "lsj_side": side,
            "test_size": side or min(128, data.test_size),
            "test_max_size": side or min(192, data.test_max_size),
        }
        return settings


def contradictions(config: DetectionConfig, protocol: Protocol) -> dict[str, str]:
    """Settings with which a test cannot give a number of `protocol`, each with the reason; {} if there are none."""
    model, test = config.model, config.test
    found = {}
    if config.data.test not in protocol.splits:
        found["data.test"] = f"{config.data.test} is none of {', '.join(protocol.splits)}"
    if model.score_threshold > protocol.score_threshold:
        found["model.score_threshold"] = f"published models are tested with at most {protocol.score_threshold}"
    if protocol.per_image is not None and test.max_detections != protocol.per_image:
        found["test.max_detections"] = f"{protocol.title} counts {protocol.per_image} of an image"
    kept = test.max_detections if protocol.per_image is not None else protocol.kept_by_nms
    if protocol.per_image is None and isinstance(model, Detector) and model.suppression != "hard":
        kept = 0
        if model.detections_per_image:
            found["model.detections_per_image"] = f"{protocol.title} has no limit per image, nor has Soft-NMS"
    if 0 < model.detections_per_image < kept:
        found["model.detections_per_image"] = f"published models give {kept}"
    per_class = model.detections_per_class if isinstance(model, Detector) else 0
    if 0 < per_class < (protocol.per_category or protocol.per_image or 0):
        found["model.detections_per_class"] = f"{protocol.title} may count more of one category"
    return found

"""The typed, frozen description of an experiment: inputs are fields, everything computable is a property."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cvpods_ext.config.decay import Decay, MultiStep
from cvpods_ext.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DatasetFiles:
    """A data set of one's own: a json in COCO or LVIS layout and the folder that its image paths start from.

    Relative paths start at the data root (PODS_DATASETS, else ./datasets found upward from the experiment).
    """

    annotations: str
    images: str
    names_may_leave: bool = False  # whether image names may be absolute or lead out of `images` by ".."


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained and tested on. A task adds how an image reaches its model."""

    train: str | DatasetFiles | tuple[DatasetFiles, ...]
    test: str | DatasetFiles
    sampler: Literal["uniform", "repeat_factor", "instance_repeat_factor"] = "uniform"
    repeat_threshold: float = 0.001  # t of repeat-factor sampling
    channels: Literal["RGB", "BGR"] = "RGB"
    num_shots: str = ""  # file of class counts below the data root; "" is the data set's own
    max_images: int = 0  # use only the first so many images; 0 is all
    workers: int = 4  # loader processes per rank


@dataclass(frozen=True, kw_only=True)
class Model:
    """Where weights come from and what is trained. Layers are in net.py; a task adds its model's settings."""

    init: str = "none"  # a file, hf://, detectron2:// or https://..., experiment:<name>, or none
    init_skip: tuple[str, ...] = ()  # regular expressions of tensors that are not taken from init
    train_only: tuple[str, ...] = ()  # regular expressions of parameter names; () trains what net.py left trainable
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # in the order of data.channels
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)


def _at_least(name: str, value: float, lowest: int) -> None:
    if not value >= lowest:  # NaN neither
        raise ConfigError(f"{name} must be at least {lowest}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, how fast, how precisely."""

    iters: int = 180_000
    fit: Literal["gradient", "statistics", "none"] = "gradient"  # statistics: one pass over the images, see posthoc
    lr: float = 0.02
    decay: Decay = field(default_factory=MultiStep)  # or Cosine, Polynomial, see config.decay
    warmup: Literal["linear", "constant"] = "linear"  # from warmup_factor to 1, or warmup_factor throughout
    warmup_iters: int = 1_000
    warmup_factor: float = 0.001  # of the rate
    lr_multipliers: tuple[tuple[str, float], ...] = ()  # (regular expression of parameter names, factor of their rate)
    batch_size: int = 16  # images per optimizer step, over all processes
    images_per_device: int = 2  # at once; what is missing to batch_size is accumulated
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9  # of SGD
    weight_decay: float = 0.0001
    decay_norms: bool = False  # weight decay also on normalisation layers and position tables
    decay_vectors: bool = True  # weight decay also on biases and all other parameters of one dimension
    layer_decay: float = 1.0  # each transformer block learns slower than the one above by this factor; 1 is off
    clip_norm: float = 0.0  # global L2 norm of all gradients; 0 is off
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sharding: Literal["replicate", "shard"] = "replicate"  # each process holds all parameters (DDP) or a share (FSDP2)
    ema_decay: float = 0.0  # of the running average of parameters and buffers; 0 is off
    compile: bool = False  # backbone and pyramid by torch.compile

    def __post_init__(self) -> None:
        if min(self.iters, self.batch_size, self.images_per_device) < 1:
            raise ConfigError("schedule.iters, batch_size and images_per_device must be at least 1")
        for name in ("lr", "momentum", "weight_decay", "clip_norm", "warmup_iters", "warmup_factor"):
            _at_least(f"schedule.{name}", getattr(self, name), 0)
        if self.batch_size % self.images_per_device:
            raise ConfigError(
                f"schedule.batch_size={self.batch_size} is not a multiple of "
                f"schedule.images_per_device={self.images_per_device}"
            )
        if not 0 < self.layer_decay <= 1 or not 0 <= self.ema_decay < 1:
            raise ConfigError(
                "schedule.layer_decay must be in (0, 1] and schedule.ema_decay in [0, 1), "
                f"got {self.layer_decay} and {self.ema_decay}"
            )
        if self.compile and self.sharding == "shard":
            raise ConfigError(
                "schedule.compile is for replicated models only; set schedule.sharding=replicate or drop it"
            )
        if any(factor < 0 for _, factor in self.lr_multipliers):
            raise ConfigError(f"schedule.lr_multipliers must not be negative, got {self.lr_multipliers}")

    def accumulation(self, world_size: int) -> int:
        """How often each of `world_size` processes takes `images_per_device` images to make up `batch_size`."""
        steps, rest = divmod(self.batch_size, self.images_per_device * world_size)
        if rest or not steps:
            raise ConfigError(
                f"schedule.batch_size={self.batch_size} cannot be shared evenly by {world_size} processes that take "
                f"schedule.images_per_device={self.images_per_device} images at once; change one of the three"
            )
        return steps


@dataclass(frozen=True, kw_only=True)
class Test:
    """What is measured, when, and on which weights. A task adds the rules of its evaluation."""

    metrics: tuple[str, ...] = ()  # families of the task's metric table; () is what the task computes by default
    ema: bool = False  # test the running average of the weights instead of the weights
    pictures: int = 6  # images drawn with their predictions after a test
    every: int = 0  # iterations between tests during training, which also write a checkpoint; 0 is never


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment; every task has a subclass with its own sections, such as `config.detection.DetectionConfig`.

    `task` names a module of `cvpods_ext.tasks`, or, with a dot, any module, see `tasks.task`. `base`, `written` and
    `folder` remember where the config came from and are not its identity.
    """

    task: ClassVar[str] = ""

    data: Data
    model: Model = field(default_factory=Model)
    schedule: Schedule = field(default_factory=Schedule)
    test: Test = field(default_factory=Test)
    seed: int = 0
    output: str = ""  # "" is outputs/ in the experiment folder
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 3
    keep_every: int = 0  # checkpoints of multiples of so many iterations are never removed; 0 is none
    keep_best: str = ""  # like segm/APr: the checkpoint whose test (test.every) was best by it is never removed
    log_every: int = 20
    picture_every: int = 2_000  # iterations between the training pictures in TensorBoard; 0 is never
    base: Config | None = field(default=None, compare=False, repr=False)
    written: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    folder: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep_checkpoints", "log_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("keep_every", "picture_every"):
            _at_least(name, getattr(self, name), 0)
        for name, value in (("data.workers", self.data.workers), ("data.max_images", self.data.max_images)):
            _at_least(name, value, 0)
        for name, value in (("test.every", self.test.every), ("test.pictures", self.test.pictures)):
            _at_least(name, value, 0)
        if self.keep_best and not self.test.every:
            raise ConfigError(f"keep_best={self.keep_best!r} needs tests during training: set test.every")

    def protocol(self) -> str:
        """The rules of the benchmark that is tested on, in words for a card; "" where there is none."""
        return ""

    def smoke_settings(self) -> dict[str, Any]:
        """What `--smoke` changes: ten steps on eight images, about a minute on a CPU. A task adds small inputs."""
        schedule = self.schedule
        return {
            "data": {"max_images": 8, "workers": 0},
            "schedule": {
                "iters": min(10, schedule.iters),
                "warmup_iters": min(5, schedule.warmup_iters),
                "batch_size": 2,
                "images_per_device": 2,
                # A few steps from scratch at the full rate tell nothing; one tenth keeps every loss finite.
                "lr": schedule.lr / 10,
                "clip_norm": 1.0,
                "precision": "fp32",  # a CPU only emulates half precision
            },
            "checkpoint_every": 5,
            "log_every": 1,
            "picture_every": 5,
        }


def smoke_batch(processes: int) -> list[str]:
    """Overrides that share the two images of a smoke run's step among processes, one each where there are more."""
    if processes == 1:
        return []
    return [f"schedule.batch_size={max(2, processes)}", "schedule.images_per_device=1"]


PROVENANCE_FIELDS = ("base", "written", "folder")

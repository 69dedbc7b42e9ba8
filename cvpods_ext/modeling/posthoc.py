"""Calibrations that need no gradient: counts, a box-counting dimension or one pass over the training RoIs.

Each wraps a trained classifier and changes its logits at test time only. Whatever can be written as a shift of the
foreground logits against background is one class, `LogitShift`. Shapes: R = RoIs, D = feature width, C = foreground
classes, M = annotated boxes; background is column C.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.calibration import Calibration, DisAlign
from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext
from cvpods_ext.modeling.losses.sigmoid import SigmoidLoss
from cvpods_ext.runtime.dist import world_size


class PostHocCalibration(Calibration):
    """A calibration that acts at test time and leaves training alone."""

    def forward(self, features: Tensor) -> Tensor:
        """(R, D) -> (R, C + 1) logits."""
        logits = self.cls_score(features)
        return logits if self.training else self.calibrate(logits.float())

    def calibrate(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C + 1)."""
        raise NotImplementedError


class LogitShift(PostHocCalibration):
    """Adds a constant per foreground class; background stays, and so do further columns behind it.

    All foreground scores may shrink against background: test with a score threshold of 1e-4 or less.
    """

    shift: Tensor

    def __init__(self, classifier: nn.Module, shift: Tensor) -> None:
        super().__init__(classifier)
        self.register_buffer("shift", shift.float(), persistent=False)

    def calibrate(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C + 1)."""
        num_classes = len(self.shift)
        return torch.cat((logits[:, :num_classes] + self.shift, logits[:, num_classes:]), dim=1)


def logit_adjustment(class_counts: Tensor, tau: float = 1.0) -> Tensor:
    """(C,) counts -> (C,) shift -tau ln n_c (https://arxiv.org/abs/2007.07314, equation 9)."""
    return -tau * class_counts.double().clamp(min=1).log()


def norcal(image_counts: Tensor, gamma: float = 0.6) -> Tensor:
    """(C,) image counts -> (C,) shift of NorCal (https://arxiv.org/abs/2107.02170, equation 5).

    Dividing exp(z_c) by n_c ^ gamma and normalising with background is logit adjustment with tau = gamma.
    """
    return logit_adjustment(image_counts, gamma)


def norcal_effective_number(image_counts: Tensor, decay: float = 0.9999) -> Tensor:
    """(C,) image counts -> (C,) shift -ln((1 - decay ^ n_c) / (1 - decay)): NorCal with the effective number."""
    counts = image_counts.double().clamp(min=1)
    return -(torch.log(-torch.expm1(counts * math.log(decay))) - math.log1p(-decay))


def fracal(image_counts: Tensor, num_images: int, dimensions: Tensor, strength: float = 2.0) -> Tensor:
    """(C,) image counts, (C,) fractal dimensions -> (C,) shift of FRACAL's softmax form
    (https://arxiv.org/abs/2410.11774).

    Frequency in space and number: -log10(I_c / images) - log10 C - strength ln D_c. The logarithm of base ten in a
    softmax of base e makes the first part logit adjustment with tau = 1 / ln 10.
    """
    return fracal_frequency(image_counts, num_images) - strength * dimensions.double().log()


def fracal_frequency(image_counts: Tensor, num_images: int) -> Tensor:
    """(C,) image counts -> (C,) -log10(I_c / images) - log10 C."""
    fraction = image_counts.double().clamp(min=1) / num_images
    return -fraction.log10() - math.log10(len(image_counts))


def fractal_dimensions(centres: Tensor, labels: Tensor, num_classes: int, grid: int = 64) -> Tensor:
    """Box-counting dimension of where the boxes of each class lie: 1 on a line or for few boxes, 2 all over.

    centres (M, 2) in [0, 1] of the image's width and height, labels (M,) -> (C,) float64. For grids of 1 to `grid`
    cells a side, ln(occupied cells) is fitted against ln(cells a side) by least squares, using only grids with no more
    cells than the class has boxes; below 1, or with fewer than 4 boxes, the dimension is 1.
    """
    boxes = torch.bincount(labels, minlength=num_classes)
    sides = torch.arange(1, grid + 1, device=centres.device)
    occupied = torch.stack([_occupied(centres, labels, num_classes, int(side)) for side in sides])  # (grid, C)
    used = (sides[:, None] ** 2 <= boxes).double()
    x, y = sides.double().log()[:, None], occupied.double().clamp(min=1).log()
    total = used.sum(dim=0).clamp(min=1)
    x_mean, y_mean = (used * x).sum(dim=0) / total, (used * y).sum(dim=0) / total
    covariance = (used * (x - x_mean) * (y - y_mean)).sum(dim=0)
    variance = (used * (x - x_mean) ** 2).sum(dim=0)
    slope = covariance / torch.where(variance > 0, variance, 1.0)
    return torch.where(boxes >= 4, slope, 1.0).clamp(min=1.0)


def _occupied(centres: Tensor, labels: Tensor, num_classes: int, side: int) -> Tensor:
    """(C,) cells of a side x side grid that hold the centre of a box of the class."""
    cells = (centres * side).long().clamp(0, side - 1)
    keys = (labels * side + cells[:, 1]) * side + cells[:, 0]
    return torch.bincount(keys.unique() // (side * side), minlength=num_classes)


class LogN(PostHocCalibration):
    """Standardises the logits of each class by their moments over training RoIs (https://arxiv.org/abs/2203.17020).

    z'_c = (z_c - (mean_c - min_k mean_k)) / deviation_c for foreground. Which moments, a subclass says; until logits
    are accumulated they are 0 and 1, which changes nothing. They are part of the state dict.
    """

    accumulating = False

    def forward(self, features: Tensor) -> Tensor:
        """(R, D) -> (R, C + 1) logits; see `calibration.FittedCalibration`."""
        logits = self.cls_score(features)
        if self.accumulating:
            self.accumulate(logits)
        return logits if self.training else self.calibrate(logits.float())

    def accumulate(self, logits: Tensor) -> None:
        """Take in the (R, C + 1) logits of one forward pass."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Combine what the processes of a run accumulated."""
        raise NotImplementedError

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (C,)."""
        raise NotImplementedError

    def calibrate(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C + 1)."""
        mean, variance = self.moments()
        num_classes = len(mean)
        offset = (mean - mean.min()).float()
        deviation = variance.clamp(min=1e-11).sqrt().float()
        return torch.cat(((logits[:, :num_classes] - offset) / deviation, logits[:, num_classes:]), dim=1)


class RunningLogN(LogN):
    """Moments as the released code keeps them: the running statistics of a batch normalisation.

    Each forward pass moves them by `momentum` towards the mean and the unbiased variance of its own rows. So variance
    between batches is lost, and how far they get depends on the number of batches: with 5e-5 one pass over LVIS in
    12,521 batches covers 47 % of the way. The first process's are kept, as there; `ExactLogN` has the moments of all
    rows.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, classifier: nn.Module, num_classes: int, momentum: float = 5e-5) -> None:
        super().__init__(classifier)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_classes))
        self.register_buffer("running_variance", torch.ones(num_classes))

    @torch.no_grad()
    def accumulate(self, logits: Tensor) -> None:
        """Take in the (R, C + 1) logits of one forward pass; fewer than two rows have no variance and are left out."""
        if len(logits) > 1:
            variance, mean = torch.var_mean(logits[:, : len(self.running_mean)].float(), dim=0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance, self.momentum)

    def synchronize(self) -> None:
        """Take over the statistics of the first process."""
        for statistics in (self.running_mean, self.running_variance):
            if world_size() > 1:
                torch_dist.broadcast(statistics, src=0)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Running mean and variance (C,)."""
        return self.running_mean, self.running_variance


class ExactLogN(LogN):
    """Moments of all rows of all processes, whatever the batches: the definition of the paper.

    The sums behind them are in float64 and are what the state dict holds.
    """

    observed: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, classifier: nn.Module, num_classes: int) -> None:
        super().__init__(classifier)
        self.register_buffer("observed", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(num_classes, dtype=torch.float64))

    @torch.no_grad()
    def accumulate(self, logits: Tensor) -> None:
        """Add (R, C + 1) logits to the sums, in float64."""
        rows = logits[:, : len(self.total)].double()
        self.observed += len(rows)
        self.total += rows.sum(dim=0)
        self.squares += rows.square().sum(dim=0)

    def synchronize(self) -> None:
        """Add up the sums of all processes."""
        for sums in (self.observed, self.total, self.squares):
            if world_size() > 1:
                torch_dist.all_reduce(sums)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (C,) of all logits seen, 0 and 1 if there were none."""
        seen = self.observed.clamp(min=1)
        mean = self.total / seen
        return mean, torch.where(self.observed > 0, self.squares / seen - mean.square(), 1.0)


class FracalSigmoid(ClassificationLoss):
    """FRACAL for sigmoid detectors: a loss whose scores are sigmoid(z) sigmoid(z + b + d).

    b is the frequency term of `fracal` and d_c = -log10(D_c ^ strength / sum of D ^ strength) - log10 C. Training is
    that of the wrapped loss.
    """

    shift: Tensor

    def __init__(
        self,
        loss: SigmoidLoss,
        image_counts: Tensor,
        num_images: int,
        dimensions: Tensor,
        strength: float = 2.0,
    ) -> None:
        super().__init__()
        if not isinstance(loss, SigmoidLoss):
            raise ConfigError(
                f"FracalSigmoid calibrates sigmoid scores, but {type(loss).__name__} trains a softmax; "
                "use LogitShift(classifier, fracal(...)) around the classifier instead"
            )
        self.loss = loss
        spread = dimensions.double() ** strength
        shift = -(spread / spread.sum()).log10() - math.log10(len(spread))
        self.register_buffer("shift", (shift + fracal_frequency(image_counts, num_images)).float(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, context: LossContext | None = None) -> Tensor:
        """(R, C + 1), (R,) -> scalar of the wrapped loss."""
        return self.loss(logits, labels, context)

    def scores(self, logits: Tensor) -> Tensor:
        """(R, C + 1) -> (R, C)."""
        shifted = torch.cat((logits[:, :-1] + self.shift, logits[:, -1:]), dim=1)
        return self.loss.scores(logits) * self.loss.scores(shifted)


def check_combination(predictor: nn.Module, loss: ClassificationLoss) -> None:
    """ConfigError when classifier, calibration and loss do not belong together, with the reason.

    Shifts against background are meaningless where background is no competitor of the classes: with sigmoids, and with
    an objectness or grouped head of its own. What is fitted to the logits of one softmax has none with sigmoids either.
    The classifier needs as many columns as the loss reads.
    """
    classifier = predictor
    while isinstance(classifier, Calibration):
        _check_calibration(classifier, loss)
        classifier = classifier.cls_score
    weight = getattr(classifier, "weight", None)
    num_classes = getattr(classifier, "num_classes", None)
    if isinstance(weight, Tensor) and isinstance(num_classes, int):
        wanted = num_classes + 1 + getattr(loss, "extra_logits", 0)
        if len(weight) != wanted:
            raise ConfigError(
                f"{type(loss).__name__} reads {wanted} logits for {num_classes} classes, the classifier gives "
                f"{len(weight)}: build it with extra_logits={wanted - num_classes - 1}"
            )


def _check_calibration(calibration: Calibration, loss: ClassificationLoss) -> None:
    name, sigmoids = type(calibration).__name__, isinstance(loss, SigmoidLoss | FracalSigmoid)
    if isinstance(calibration, LogitShift) and (sigmoids or getattr(loss, "extra_logits", 0)):
        raise ConfigError(
            f"{name} shifts classes against background inside one softmax, but {type(loss).__name__} has none over "
            "classes and background; drop the calibration or use a softmax loss (for sigmoids there is FracalSigmoid)"
        )
    if isinstance(calibration, DisAlign | LogN) and sigmoids:
        raise ConfigError(
            f"{name} aligns the classes of one softmax while background stays, but {type(loss).__name__} asks every "
            "class by itself with a sigmoid; drop the calibration or use a softmax loss such as "
            "GroupReweightedCrossEntropy"
        )

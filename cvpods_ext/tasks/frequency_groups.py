"""How rare, common and frequent classes are learned: summed on the device, read when a record is written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.segmentation.losses import labelled_rows
from cvpods_ext.modeling.segmentation.segmentor import Segmentor
from cvpods_ext.runtime import dist

_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
PIXEL_STEP = 8  # of the pixels that are looked at, since all of them would take as much memory as the loss
_SMALLEST = 1e-8  # of a score, before its logarithm


class GroupMeter:
    """Reads the inputs of the classification losses of `model` (all stages of a cascade together) while they train.

    Of the sampled RoIs of each group: `group_loss/<group>`, the mean of -ln(score of the true class), and
    `group_accuracy/<group>`, the share in which the true class scores best among the foreground classes. Scores are
    those that the loss reads from its logits at test time, so that both mean the same for every loss.

    Args:
        groups: (C,) of "r", "c", "f".
    """

    def __init__(self, model: nn.Module, groups: np.ndarray, device: torch.device) -> None:
        self._present = [name for name in _NAMES if name in groups]
        position = [self._present.index(name) for name in groups.tolist()]
        self._group_of_label = torch.tensor([*position, len(self._present)], device=device)  # background is a group
        self._sums = torch.zeros(len(self._present) + 1, 3, dtype=torch.float64, device=device)
        self._watch(model)

    def _watch(self, model: nn.Module) -> None:
        """Hook what sees logits and labels."""
        for module in model.modules():
            if isinstance(module, ClassificationLoss):
                module.register_forward_hook(self._add)

    @torch.no_grad()
    def _add(self, loss: nn.Module, inputs: tuple[Any, ...], value: Tensor) -> None:
        if loss.training:
            scores: Tensor = loss.scores(inputs[0].detach().float())  # type: ignore[operator]
            self._count(scores, inputs[1])

    def _count(self, scores: Tensor, labels: Tensor) -> None:
        """Add rows of (R, C) scores and (R,) labels; C is background."""
        true_score = scores.gather(1, labels.clamp(max=scores.shape[1] - 1)[:, None])[:, 0]
        right = scores.argmax(dim=1) == labels
        rows = torch.stack((torch.ones_like(true_score), right, -true_score.clamp(min=_SMALLEST).log()), dim=1)
        # A product, since scattered additions differ from run to run on a GPU.
        member = F.one_hot(self._group_of_label[labels], len(self._sums))
        self._sums += member.double().T @ rows.double()

    def take(self) -> dict[str, float]:
        """Means over all processes since the last call, without groups that were not sampled.

        Every process must call it after the same step; it waits for the device.
        """
        sums = dist.mean_over_processes(self._sums).tolist()
        self._sums.zero_()
        values: dict[str, float] = {}
        for name, (count, right, loss) in zip(self._present, sums[:-1], strict=True):
            if count and math.isfinite(loss):
                values[f"group_loss/{_NAMES[name]}"] = loss / count
                values[f"group_accuracy/{_NAMES[name]}"] = right / count
        return values


class PixelGroupMeter(GroupMeter):
    """The same of the pixels that the decoder of a `Segmentor` is trained on, every eighth of each row and column."""

    def __init__(self, model: Segmentor, groups: np.ndarray, device: torch.device) -> None:
        self._of_decoder = False
        super().__init__(model, groups, device)

    def _watch(self, model: nn.Module) -> None:
        assert isinstance(model, Segmentor)
        model.decode_head.register_forward_hook(self._expect)
        model.loss.register_forward_hook(self._add)

    def _expect(self, *_: Any) -> None:
        self._of_decoder = True  # the next call of the loss; the one after that is of the auxiliary head

    @torch.no_grad()
    def _add(self, loss: nn.Module, inputs: tuple[Any, ...], value: Tensor) -> None:
        if loss.training and self._of_decoder:
            every = (..., slice(None, None, PIXEL_STEP), slice(None, None, PIXEL_STEP))
            rows, labels = labelled_rows(inputs[0].detach()[every], inputs[1][every])
            self._count(rows.softmax(dim=1), labels)
        self._of_decoder = False

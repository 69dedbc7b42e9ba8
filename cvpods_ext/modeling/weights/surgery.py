"""Another class list: carry over the rows of the classes that two data sets share.

Shapes: C = classes of the head in the file, K = classes wanted, D = width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.report import Mismatch


@dataclass(frozen=True)
class Category:
    """A class as a data set names it; `synset` ("cat.n.01") and `synonyms` where the data set has them."""

    name: str
    synset: str = ""
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class _PerClass:
    """Tensors by the end of their names: rows of a class, rows of the background, the value of a class without one."""

    name: str
    rows: int = 1
    background: int = 0
    absent: float = 0.0

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Of whole names."""
        return re.compile(rf"(^|\.){self.name}$")


_PER_CLASS = (
    _PerClass(r"cls_score\.(weight|bias)", background=1),
    _PerClass(r"bbox_pred\.(weight|bias)", rows=4),
    _PerClass(r"mask_head\.predictor\.(weight|bias)"),
    _PerClass(r"(logit_scale|logit_bias|fed_loss_cls_weights)"),
    _PerClass(r"(positive|negative)_gradients"),
    # Of DINO: a class that was never trained scores 0.01, as before training.
    _PerClass(r"class_embed\.(\d+\.)?weight"),
    _PerClass(r"class_embed\.(\d+\.)?bias", absent=math.log(0.01 / 0.99)),
    _PerClass(r"label_enc\.weight"),
)


def match_categories(theirs: Sequence[Category], ours: Sequence[Category]) -> Tensor:
    """(K,) int64: for each of our classes the position of the same class in theirs, or -1.

    The same synset wins, then the same name, then a shared synonym. Names are compared in lower case without
    underscores and what stands in brackets. A class of theirs serves at most one of ours in each of the three rounds.
    """
    rows = torch.full((len(ours),), -1, dtype=torch.int64)
    for keys in (_synset_keys, _name_keys, _all_keys):
        index: dict[str, int] = {}
        for position, category in enumerate(theirs):
            for key in keys(category):
                index.setdefault(key, position)
        for position, category in enumerate(ours):
            found = [index[key] for key in keys(category) if key in index]
            if rows[position] < 0 and found:
                rows[position] = found[0]
    return rows


def _synset_keys(category: Category) -> list[str]:
    return [category.synset] if category.synset else []


def _name_keys(category: Category) -> list[str]:
    return [_plain(category.name)]


def _all_keys(category: Category) -> list[str]:
    return [_plain(name) for name in (category.name, *category.synonyms)]


def _plain(name: str) -> str:
    return " ".join(re.sub(r"\(.*?\)", " ", name.lower()).replace("_", " ").replace("-", " ").split())


def carry_over(
    state: Mapping[str, Tensor], rows: Tensor, num_classes: int, initial: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """A copy of `state` whose per-class tensors have K = len(rows) classes instead of `num_classes`.

    Class k takes the rows of class `rows[k]`; where that is -1 it takes those of `initial` (a state dict of the new
    model), else zeros, and a bias of DINO's classifiers that of a score of 0.01. The background row is kept.
    Class-agnostic tensors stay as they are.
    """
    if rows.numel() and int(rows.max()) >= num_classes:
        raise WeightsError(f"row {int(rows.max())} is asked of a head with {num_classes} classes")
    adapted = dict(state)
    for name, value in state.items():
        for kind in _PER_CLASS:
            expected = num_classes * kind.rows + kind.background
            if kind.pattern.search(name) and value.shape[:1] == (expected,):
                begin = None if initial is None else initial.get(name)
                adapted[name] = _gather(value, rows, num_classes, kind, begin)
    if all(adapted[name] is state[name] for name in state):
        raise WeightsError(f"no tensor of the file has one row for each of {num_classes} classes: wrong class list?")
    return adapted


def _gather(value: Tensor, rows: Tensor, num_classes: int, kind: _PerClass, initial: Tensor | None) -> Tensor:
    """Rows of the wanted classes in the wanted order, then the background rows."""
    rows_each = kind.rows
    per_class = value[: num_classes * rows_each].unflatten(0, (num_classes, rows_each))
    wanted = per_class[rows.clamp(min=0)].flatten(0, 1)
    absent = (rows < 0).repeat_interleave(rows_each)
    wanted[absent] = kind.absent if initial is None else initial[: len(wanted)][absent].to(wanted.dtype)
    return torch.cat([wanted, value[num_classes * rows_each :]])


def class_count_note(skipped: Sequence[Mismatch]) -> list[str]:
    """Say which two class counts do not agree, where that is why tensors were skipped."""
    for mismatch in skipped:
        for kind in _PER_CLASS:
            if kind.pattern.search(mismatch.name) and mismatch.in_file[1:] == mismatch.in_model[1:]:
                theirs, ours = ((shape[0] - kind.background) // kind.rows for shape in mismatch[1:])
                return [
                    f"the file has {theirs} classes, the model {ours}: everything but the class rows is loaded. To "
                    "keep the classes that both share: pods_weights convert FILE NEW.safetensors "
                    "--from-categories A.json --to-categories B.json"
                ]
    return []

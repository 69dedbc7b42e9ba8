"""What a backbone offers to layer-wise learning-rate decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class LayeredBackbone(Protocol):
    """A backbone that is a sequence of layers, each of which may learn more slowly than the one after it."""

    def layer_groups(self) -> Sequence[Sequence[nn.Parameter]]:
        """Parameters by layer, from the input on; those in no group (a norm behind the last layer) learn at the full
        rate.
        """
        ...

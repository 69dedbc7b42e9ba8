"""RoIAlign as old folders call it: a list of boxes for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cvpods_ext.compat.structures import Boxes
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.detection.pooling import CANONICAL_LEVEL, CANONICAL_SIDE, RoIPooler


class ROIPooler(nn.Module):
    """Cuts every box out of the level that suits its size; scales are 1 / stride of each level.

    ConfigError for another kind of pooling than adaptive, aligned RoIAlign with the level rule of FPN.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = CANONICAL_SIDE,
        canonical_level: int = CANONICAL_LEVEL,
    ) -> None:
        super().__init__()
        height, width = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        wanted = (pooler_type, sampling_ratio, canonical_box_size, canonical_level, height - width)
        if wanted != ("ROIAlignV2", 0, CANONICAL_SIDE, CANONICAL_LEVEL, 0):
            raise ConfigError(
                f"ROIPooler(output_size={output_size}, sampling_ratio={sampling_ratio}, pooler_type={pooler_type!r}, "
                f"canonical_box_size={canonical_box_size}, canonical_level={canonical_level}): only square ROIAlignV2 "
                f"with sampling ratio 0 and boxes of {CANONICAL_SIDE} pixels on level {CANONICAL_LEVEL} is possible"
            )
        self.output_size = (height, width)
        self._pooler = RoIPooler(height, [round(1 / scale) for scale in scales])

    def forward(self, x: Sequence[Tensor], box_lists: Sequence[Boxes]) -> Tensor:
        """Maps (B, C, H, W) of each level, boxes of each image -> (R, C, S, S), image by image."""
        boxes = Boxes.cat(box_lists).tensor.to(x[0].device)
        counts = torch.tensor([len(one) for one in box_lists], device=boxes.device)
        image = torch.arange(len(box_lists), device=boxes.device).repeat_interleave(counts, output_size=len(boxes))
        return self._pooler(x, boxes, image)

"""Images of differing size become one batch.

Shapes: N = images, h, w = rows and columns of an image, H, W = rows and columns of the padded batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cvpods_ext.modeling.layers import to_device


def normalize_and_pad(
    images: Sequence[Tensor], mean: Tensor, std: Tensor, padded_size: Callable[[int, int], tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Images (3, h, w) -> normalised batch (N, 3, H, W), zero right of and below each image.

    Also returns the sizes of the images, (N, 4) float32 = width, height, width, height. `mean` and `std` are
    (3, 1, 1); `padded_size` maps the largest height and width to H and W.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = padded_size(max(h for h, _ in sizes), max(w for _, w in sizes))
    padded = mean.new_zeros((len(images), 3, height, width))
    for row, image, (h, w) in zip(padded, images, sizes, strict=True):
        torch.sub(image, mean, out=row[:, :h, :w]).div_(std)
    image_sizes = torch.tensor([[w, h, w, h] for h, w in sizes], dtype=torch.float32)
    return padded, to_device(image_sizes, padded.device)

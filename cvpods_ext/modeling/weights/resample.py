"""Transformer weights of another patch size or grid, resampled as the EVA-02 authors do for detection (14 to 16)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def resample(name: str, value: Tensor, shape: torch.Size) -> Tensor | None:
    """`value` interpolated to `shape` if it is a patch kernel or a position table of another grid, else None.

    A patch kernel is (D, 3, P, P); a position table is (1, 1 + G * G, D) with the class token in row 0. Both are
    interpolated bicubically without antialiasing, as in the authors' conversion to patch 16.
    """
    if value.ndim != len(shape):
        return None
    if name.endswith("patch_embed.proj.weight") and value.ndim == 4 and value.shape[:2] == shape[:2]:
        return _bicubic(value, shape[2], shape[3])
    if name.endswith("pos_embed") and value.ndim == 3 and value.shape[::2] == shape[::2]:
        old, new = math.isqrt(value.shape[1] - 1), math.isqrt(shape[1] - 1)
        if old * old + 1 == value.shape[1] and new * new + 1 == shape[1]:
            grid = value[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
            return torch.cat([value[:, :1], _bicubic(grid, new, new).flatten(2).transpose(1, 2)], dim=1)
    return None


def _bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """(N, C, h, w) -> (N, C, height, width), computed in float32."""
    resized = F.interpolate(images.float(), size=(height, width), mode="bicubic", align_corners=False)
    return resized.to(images.dtype)

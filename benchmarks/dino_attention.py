"""What deformable attention costs: the form in use beside the usual one with grid_sample, which keeps every sample.

    python benchmarks/dino_attention.py

Writes processor seconds of one thread, forward and backward, and the bytes that the backward pass keeps, for the
encoder and for the cross-attention of 900 queries, to benchmarks/dino_attention.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpods_ext.modeling.detr.attention import sample_levels
from cvpods_ext.runtime.files import write_text

Sizes = Sequence[tuple[int, int]]
Form = Callable[[Tensor, Sizes, Tensor, Tensor], Tensor]
HEADS, WIDTH, POINTS, STRIDES = 8, 32, 4, (8, 16, 32, 64)


def grid_sample_levels(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """`sample_levels` by one grid_sample per level."""
    images, _, heads, width = value.shape
    queries = locations.shape[1]
    output = value.new_zeros(())
    maps = value.split([rows * columns for rows, columns in sizes], dim=1)
    for level, (map_, (rows, columns)) in enumerate(zip(maps, sizes, strict=True)):
        image = map_.permute(0, 2, 3, 1).reshape(-1, width, rows, columns)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).reshape(images * heads, 1, queries, -1)
        output = output + (sampled * share).sum(dim=-1)
    return output.view(images, heads * width, queries).transpose(1, 2)


def inputs(side: int, queries: int) -> tuple[Tensor, Sizes, Tensor, Tensor]:
    """One image of side x side pixels; `queries` 0 stands for the tokens themselves, which look around their place."""
    rng = torch.Generator().manual_seed(0)
    sizes = [(side // stride, side // stride) for stride in STRIDES]
    centres = torch.cat([torch.cartesian_prod(*((torch.arange(n) + 0.5) / n for n in size)).flip(1) for size in sizes])
    centres = centres[torch.randint(len(centres), (queries,), generator=rng)] if queries else centres
    shape = (1, len(centres), HEADS, len(sizes), POINTS)
    locations = centres.view(1, -1, 1, 1, 1, 2) + 0.03 * torch.randn(*shape, 2, generator=rng)
    weights = torch.rand(shape, generator=rng)
    value = torch.randn(1, sum(a * b for a, b in sizes), HEADS, WIDTH, generator=rng)
    return value.requires_grad_(), sizes, locations.requires_grad_(), weights.requires_grad_()


def measure(form: Form, side: int, queries: int, repeats: int) -> tuple[float, float, float]:
    """Least processor seconds of forward and of backward, and the megabytes kept between them."""
    arguments = inputs(side, queries)
    wanted = (arguments[0], arguments[2], arguments[3])
    forward = backward = float("inf")
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(repeats):
        kept.clear()
        started = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = form(*arguments)
        half = time.process_time()
        torch.autograd.grad(output.sum(), wanted)
        forward, backward = min(forward, half - started), min(backward, time.process_time() - half)
    for tensor in wanted:  # they exist anyway
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return forward, backward, sum(kept.values()) / 1e6


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=1024, help="pixels (default: 1024)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"Written by `python benchmarks/dino_attention.py --side {options.side} --repeats {options.repeats}`: "
        "processor seconds of one thread, least",
        "of the repeats; megabytes that one layer keeps for its backward pass beside its inputs.",
        "",
        "| layer | form | forward s | backward s | kept MB |",
        "|---|---|---:|---:|---:|",
    ]
    for layer, queries in (("encoder", 0), ("900 queries", 900)):
        for name, form in (("grid_sample", grid_sample_levels), ("in use", sample_levels)):
            forward, backward, kept = measure(form, options.side, queries, options.repeats)
            lines.append(f"| {layer} | {name} | {forward:.3f} | {backward:.3f} | {kept:.0f} |")
    write_text(options.out, "\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Models that are nothing but a list of names and shapes, and the blob names that Caffe2 gives a ResNet."""

import ast
from collections.abc import Mapping

import torch
from torch import nn

RESNET50_BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
RESNET101_BLOCKS = {2: 3, 3: 4, 4: 23, 5: 3}


def model_of(state: Mapping[str, torch.Tensor], buffers: tuple[str, ...] = ()) -> nn.Module:
    """A module tree whose state dict has these names and values; names that end in one of `buffers` are buffers."""
    root = nn.Module()
    for name, value in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        if (buffers and name.endswith(buffers)) or not value.is_floating_point():
            module.register_buffer(leaf, value.clone())
        else:
            module.register_parameter(leaf, nn.Parameter(value.clone()))
    return root


def published_shapes(path) -> dict[str, torch.Size]:
    """Names and shapes of a published cvpods experiment."""
    lines = [line.split("\t") for line in path.read_text().splitlines() if line]
    return {line[0]: torch.Size(ast.literal_eval(line[1])) for line in lines}


def caffe2_resnet(
    blocks=None, long_norm_names=True, statistics=True, width=1
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Blob name -> (our name, shape) of a Caffe2 bottleneck ResNet; channel counts are divided by `width`."""
    endings = ("gamma", "beta", "running_mean", "running_var") if long_norm_names else ("s", "b", "rm", "riv")
    ours_of = dict(zip(endings, ("weight", "bias", "running_mean", "running_var"), strict=True))
    names = {}

    def conv(blob, norm_blob, ours, out, into, kernel):
        names[f"{blob}_w"] = (f"{ours}.weight", (out, into, kernel, kernel))
        for ending in endings if statistics else endings[:2]:
            names[f"{norm_blob}_bn_{ending}"] = (f"{ours}.norm.{ours_of[ending]}", (out,))

    conv("conv1", "res_conv1", "stem.conv1", 64 // width, 3, 7)
    into = 64 // width
    for stage, count in (blocks or RESNET50_BLOCKS).items():
        middle, out = 64 * 2 ** (stage - 2) // width, 256 * 2 ** (stage - 2) // width
        for block in range(count):
            blob, ours = f"res{stage}_{block}_branch", f"res{stage}.{block}"
            if block == 0:
                conv(f"{blob}1", f"{blob}1", f"{ours}.shortcut", out, into, 1)
            conv(f"{blob}2a", f"{blob}2a", f"{ours}.conv1", middle, into, 1)
            conv(f"{blob}2b", f"{blob}2b", f"{ours}.conv2", middle, middle, 3)
            conv(f"{blob}2c", f"{blob}2c", f"{ours}.conv3", out, middle, 1)
            into = out
    names["pred_w"] = ("linear.weight", (1000, into))
    names["pred_b"] = ("linear.bias", (1000,))
    return names

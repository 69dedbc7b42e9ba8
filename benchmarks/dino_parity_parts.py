"""Parts of `dino_parity`: what passes through a model's modules, the recorded operators, the trunk of EVA-01."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from parity import Row, compare
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from cvpods_ext.modeling.backbones.eva01 import Size, eva01, spline_resize
from cvpods_ext.modeling.backbones.vit import linear_resize
from cvpods_ext.modeling.detr.attention import DeformableAttention, sample_levels
from cvpods_ext.modeling.detr.boxes import generalized_iou, inverse_sigmoid, to_centres, to_corners
from cvpods_ext.modeling.detr.losses import SigmoidFocal
from cvpods_ext.modeling.detr.matcher import MatchingCost, Objects, Predictions, solve
from cvpods_ext.modeling.detr.position import levels_of, sine_map, sine_of_boxes
from cvpods_ext.modeling.detr.queries import anchor_logits

FLOATS = 5e-6
GRADIENTS = 1e-4


class Recorder:
    """Keeps the inputs and outputs of every module, one entry per call."""

    def __init__(self, model: nn.Module) -> None:
        self._calls: dict[str, list[tuple[tuple[Any, ...], Any]]] = defaultdict(list)
        for name, module in model.named_modules():
            module.register_forward_hook(
                lambda _, inputs, output, name=name: self._calls[name].append((inputs, output))
            )

    def inputs(self, name: str, call: int = -1) -> tuple[Any, ...]:
        """Positional arguments of a call, by default the last."""
        return self._calls[name][call][0]

    def output(self, name: str) -> Any:
        """What the last call returned."""
        return self._calls[name][-1][1]


def pair_detections(boxes: Tensor, labels: Tensor, their_boxes: np.ndarray, their_labels: np.ndarray) -> Tensor:
    """For each recorded detection the nearest of ours with the same class: scores tie, so the order means nothing."""
    distance = torch.cdist(torch.from_numpy(their_boxes).double(), boxes.double(), p=1)
    distance += 1e6 * (torch.from_numpy(their_labels)[:, None] != labels)
    return torch.from_numpy(linear_sum_assignment(distance.numpy())[1])


def operator_rows(ops: Any) -> Iterator[Row]:
    """Every operator that was recorded by itself."""
    for part in (_sampling_rows, _attention_rows, _box_rows, _encoding_rows, _loss_rows, _anchor_rows):
        yield from part(ops)


def _sampling_rows(ops: Any) -> Iterator[Row]:
    inputs = [torch.from_numpy(ops[f"msda_{name}"]).requires_grad_() for name in ("value", "locations", "weights")]
    sizes = [(h, w) for h, w in ops["msda_shapes"].tolist()]
    output = sample_levels(inputs[0], sizes, inputs[1], inputs[2])
    yield compare("msda_output", output, ops["msda_output"], FLOATS)
    output.backward(torch.from_numpy(ops["msda_grad_output"]))
    for name, one in zip(("value", "locations", "weights"), inputs, strict=True):
        assert one.grad is not None
        yield compare(f"msda_grad_{name}", one.grad, ops[f"msda_grad_{name}"], FLOATS)


def _attention_rows(ops: Any) -> Iterator[Row]:
    sizes = [(h, w) for h, w in ops["msda_shapes"].tolist()]
    attention = DeformableAttention(32, 8, 4, 4)
    prefix = "msda_module_weight/"
    attention.load_state_dict({k.removeprefix(prefix): torch.from_numpy(ops[k]) for k in ops if k.startswith(prefix)})
    position, padding = (torch.from_numpy(ops[f"msda_module_{name}"]) for name in ("query_pos", "padding_mask"))
    for kind in ("ref2", "ref4"):
        query, memory, reference = (
            torch.from_numpy(ops[f"msda_module_{name}"]).requires_grad_() for name in ("query", "memory", kind)
        )
        output = query + attention(query + position, reference, memory, padding, sizes)
        yield compare(f"msda_module_{kind}_output", output, ops[f"msda_module_{kind}_output"], FLOATS)
        output.square().sum().backward()
        for name, one in (("query", query), ("memory", memory), ("ref", reference)):
            assert one.grad is not None
            yield compare(f"{kind}_grad_{name}", one.grad, ops[f"msda_module_{kind}_grad_{name}"], FLOATS)


def _box_rows(ops: Any) -> Iterator[Row]:
    first, second = (torch.from_numpy(ops[f"box_{name}_xyxy"]) for name in "ab")
    first.requires_grad_()
    yield compare("box_giou", generalized_iou(first[:, None], second), ops["box_giou"], FLOATS)
    (1 - generalized_iou(first[:9], second)).sum().backward()
    assert first.grad is not None
    yield compare("box_giou_grad", first.grad, ops["box_giou_grad_a_of_diag_loss"], FLOATS)
    centres = to_centres(first)
    yield compare("box_a_cxcywh", centres, ops["box_a_cxcywh"], FLOATS)
    yield compare("box_a_cxcywh_back", to_corners(centres), ops["box_a_cxcywh_back"], FLOATS)
    x = torch.from_numpy(ops["inverse_sigmoid_in"]).requires_grad_()
    logits = inverse_sigmoid(x)
    yield compare("inverse_sigmoid_out", logits, ops["inverse_sigmoid_out"], FLOATS)
    logits.sum().backward()
    assert x.grad is not None
    yield compare("inverse_sigmoid_grad", x.grad, ops["inverse_sigmoid_grad"], FLOATS)


def _encoding_rows(ops: Any) -> Iterator[Row]:
    boxes = torch.from_numpy(ops["sine_ref_in"])
    for features in (128, 32):
        yield compare(f"sine_ref_{features}", sine_of_boxes(boxes, features), ops[f"sine_ref_{features}"], FLOATS)
    mask = torch.from_numpy(ops["sine_map_mask"])
    yield compare("sine_map_out_16", sine_map(mask, 32), ops["sine_map_out_16"], FLOATS)
    yield compare("sine_map_out_128", sine_map(mask, 256)[2], ops["sine_map_out_128_row2"], FLOATS)


def _loss_rows(ops: Any) -> Iterator[Row]:
    logits = torch.from_numpy(ops["focal_logits"]).flatten(0, 1).requires_grad_()
    targets = torch.from_numpy(ops["focal_targets"]).flatten(0, 1)
    labels = torch.where(targets.sum(dim=1) > 0, targets.argmax(dim=1), targets.shape[1])
    loss = SigmoidFocal()(logits, labels) / float(ops["focal_num_boxes"])
    yield compare("focal_loss", loss, ops["focal_loss"], FLOATS)
    loss.backward()
    assert logits.grad is not None
    yield compare("focal_grad", logits.grad, ops["focal_grad"].reshape(logits.shape), FLOATS)
    objects = Objects(
        torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(ops[f"matcher_target_labels_img{i}"]) for i in range(2)], True, padding_value=-1
        ),
        torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(ops[f"matcher_target_boxes_img{i}"]) for i in range(2)], True
        ),
        (3, 1),
    )
    predicted = Predictions(*(torch.from_numpy(ops[f"matcher_{name}"])[None] for name in ("logits", "boxes")))
    cost = MatchingCost()(predicted, objects)
    found = torch.from_numpy(solve(cost.numpy(), objects.counts))
    for i, count in enumerate(objects.counts):
        yield compare(f"matcher_cost_img{i}", cost[0, i, :, :count], ops[f"matcher_cost_img{i}"], FLOATS)
        yield compare(f"matcher_src_img{i}", found[2, found[1] == i], ops[f"matcher_src_img{i}"])
        yield compare(f"matcher_tgt_img{i}", found[3, found[1] == i], ops[f"matcher_tgt_img{i}"])


def _anchor_rows(ops: Any) -> Iterator[Row]:
    masks = [ops[f"twostage_mask_{level}"] for level in range(4)]
    height_width = torch.from_numpy(ops["twostage_image_valid_hw"]).float()
    height, width = ops["twostage_pad_hw"].tolist()
    levels = levels_of(height_width[:, [1, 0, 1, 0]], (height, width), [mask.shape[1:] for mask in masks])
    for level, mask in enumerate(masks):
        yield compare(f"twostage_mask_{level}", levels.padding[level], mask)
    yield compare("twostage_valid_ratios", levels.valid_ratios, ops["twostage_valid_ratios"], FLOATS)
    references = ops["twostage_encoder_reference_points"]
    yield compare("twostage_encoder_reference_points", levels.reference_points(), references, FLOATS)
    anchors = anchor_logits(levels)
    yield compare("twostage_kept", anchors[..., 0] < math.inf, ops["twostage_kept"])
    yield compare("twostage_proposals_logit", anchors, ops["twostage_proposals_logit"], FLOATS)


TINY = Size(width=32, depth=3, heads=2, hidden=144, pretrained_grid=4)


def eva01_rows(record: Any) -> Iterator[Row]:
    """The trunk at the size of its tables with gradients, and at other sizes with both ways of resizing them."""
    for name, resize, suffix in (
        ("train_size", linear_resize, ""),
        ("other_size_vitdet", linear_resize, ""),
        ("other_size_beit", spline_resize, ""),
        ("other_size_beit", linear_resize, "_input_with_vitdet"),
    ):
        net = eva01(
            TINY,
            image_side=96,
            table_side=96,
            window=4,
            global_blocks=(1,),
            drop_path=0.0,
            resize=resize,
            recompute=False,
        )
        net.load_state_dict({k[7:]: torch.from_numpy(record[k]) for k in record if k.startswith("weight/")})
        recorder = Recorder(net)
        output = net(torch.from_numpy(record[f"{name}_input"]))
        yield compare(f"{name}{suffix}_last_feat", output, record[f"{name}{suffix}_last_feat"], FLOATS)
        for i in range(0 if suffix else TINY.depth):
            yield compare(f"{name}_block{i}", recorder.output(f"blocks.{i}"), record[f"{name}_block{i}"], FLOATS)
        if name == "train_size":
            output.square().mean().backward()
            for key in record:
                if key.startswith("train_size_grad/"):
                    gradient = net.get_parameter(key.removeprefix("train_size_grad/")).grad
                    assert gradient is not None, key
                    yield compare(key, gradient, record[key], GRADIENTS)

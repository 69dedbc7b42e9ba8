"""How far EVA-02's parts are from what its authors' code was recorded to give: backbone, operators, learning rates.

Part of eva02_parity.py, which writes the table.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity import EQUAL, Row, compare, impossible
from torch import Tensor

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.modeling.backbones.eva02 import RotaryTable
from cvpods_ext.modeling.backbones.vit import resize_positions, to_windows
from cvpods_ext.modeling.classifiers import FederatedClassifier
from cvpods_ext.modeling.detection.postprocess import Selection, select
from cvpods_ext.modeling.detection.soft_nms import Decay, soft_nms
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground"
RATES = {
    "lr_decay_eva02_B_0.7": "cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.fed.50k",
    "lr_decay_eva02_L_0.8": "cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1024.rfs.fed.40k",
}
HOOKED = {
    "patch_embed": "patch_embed_out_BHWC",
    **{f"blocks.0.{part}": f"block0_window_{part}_out" for part in ("norm1", "attn", "mlp")},
    **{f"blocks.1.{part}": f"block1_global_{part}_out" for part in ("norm1", "attn", "mlp")},
    **{f"blocks.{i}": f"block{i}_out_BHWC" for i in range(4)},
    "": "last_feat",
}
OFFSETS = 2e-3  # the record moves classes apart in float32, 0.1 pixel at 1,203 classes
NEAR_LEAST = 2.1e-3  # a score so near the least one (0.001) may appear or vanish by that


@torch.no_grad()
def backbone_rows(backbone: SimplePyramid, recorded: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """Every recorded tensor inside the transformer, and the pyramid's levels."""
    seen: dict[str, Any] = {}
    hooks = [
        backbone.net.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, key=key: seen.__setitem__(key, output)
        )
        for name, key in HOOKED.items()
    ]
    pyramid = backbone(torch.from_numpy(recorded["preprocessed"]))
    for hook in hooks:
        hook.remove()
    for key in HOOKED.values():
        yield compare(key, seen[key], recorded[key])
    for level, map_ in enumerate(pyramid, start=2):
        yield compare(f"p{level}", map_, recorded[f"p{level}"])
    yield compare("abs_pos_8x8", resize_positions(backbone.net.pos_embed, (8, 8)), recorded["abs_pos_8x8"])
    for kind in ("win", "glb"):
        table = backbone.net.get_submodule(f"rope_{kind}")
        yield compare(f"rope_{kind}_cos", table.get_buffer("freqs_cos"), recorded[f"rope_{kind}_cos"])
        yield compare(f"rope_{kind}_sin", table.get_buffer("freqs_sin"), recorded[f"rope_{kind}_sin"])


def operator_rows(ops: Mapping[str, np.ndarray], image_counts: Tensor) -> Iterator[Row]:
    """Rotary tables, positions, windows, Soft-NMS, the choice of detections, the weights of the federated loss."""
    yield from rotary_rows(ops)
    positions = torch.from_numpy(ops["abs_pos_in_1x197x8"])
    for key in (key for key in ops if key.startswith("abs_pos_out_")):
        height, width = map(int, key.removeprefix("abs_pos_out_").split("x"))
        yield compare(key, resize_positions(positions, (height, width)), ops[key])
    yield compare("win3_out", to_windows(torch.from_numpy(ops["win_in"]), 3), ops["win3_out"], EQUAL)
    yield from soft_nms_rows(ops)
    yield from selection_rows(ops)
    key = "lvis_v1_train_fed_loss_weights_power0.5"
    yield compare(key, FederatedClassifier(4, image_counts).fed_loss_cls_weights, ops[key])


def rotary_rows(ops: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """Tables of the published geometries, some by a few rows, and one rotation."""
    for key in ops:
        found = re.fullmatch(r"(rope_half(\d+)_pt(\d+)_ft(\d+|None))_(cos|sin)(_rows)?", key)
        if found:
            geometry, half, grid, side, kind, some = found.groups()
            ours = RotaryTable(int(grid if side == "None" else side), 2 * int(half), int(grid)).get_buffer(
                f"freqs_{kind}"
            )
            yield compare(key, ours[ops[f"{geometry}_rows"]] if some else ours, ops[key])
    rotated = RotaryTable(4, 32)(torch.from_numpy(ops["rope_apply_in"]))
    yield compare("rope_apply_out_half16_pt16_ft4", rotated, ops["rope_apply_out_half16_pt16_ft4"])


def soft_nms_rows(ops: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """Lowered scores of what remains, in the order of the boxes; "naive" is hard NMS and is not offered."""
    boxes, scores = torch.from_numpy(ops["softnms_boxes"]), torch.from_numpy(ops["softnms_scores"])
    decays: tuple[Decay, ...] = ("linear", "gaussian")
    for decay in decays:
        for key in (key for key in ops if key.startswith(f"softnms_{decay}") and key.endswith("_keep")):
            iou, sigma = key.removesuffix("_keep").split("_iou")[1].split("_sigma")
            keep, lowered = soft_nms(
                boxes, scores, torch.zeros(len(boxes)), decay=decay, iou_threshold=float(iou), sigma=float(sigma)
            )
            by_box, order = keep.argsort(), ops[key].argsort()
            yield compare(key, keep[by_box], ops[key][order])
            name = key.replace("_keep", "_dets")
            yield compare(f"{name}, scores", lowered[by_box], ops[name][order, 4])


def selection_rows(ops: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """The routine per image with 60 boxes and 1,203 classes, each detection named by its box and class."""
    columns, height_width = torch.from_numpy(ops["perimg_scores_cols"]).long(), ops["perimg_image_hw"].tolist()
    boxes, scores = torch.from_numpy(ops["perimg_boxes"]), torch.zeros(60, 1203)
    scores[:, columns] = torch.from_numpy(ops["perimg_scores_at_cols"])
    limit = torch.tensor([*height_width[::-1], *height_width[::-1]])
    options = {
        "nms": Selection(0.02, 0.5, 100),
        "soft_linear_cw": Selection(0.02, 0.6, 10_000, "linear"),
        "soft_gauss_cw": Selection(0.02, 0.6, 10_000, "gaussian"),
    }
    for name, selection in options.items():
        found = select(scores, lambda rows, classes: boxes[rows], limit, selection)
        ours = _by_box_and_class(found.boxes, found.labels, found.scores)
        record = {part: torch.from_numpy(ops[f"perimg_{name}_{part}"]) for part in ("boxes", "classes", "scores")}
        theirs = _by_box_and_class(record["boxes"], record["classes"], record["scores"])
        lone = [(ours | theirs)[key] for key in ours.keys() ^ theirs.keys()]
        if lone and (name == "nms" or max(lone) > NEAR_LEAST):
            yield impossible(f"perimg_{name}: {len(lone)} detections differ")
            continue
        both = sorted(ours.keys() & theirs.keys())
        recorded = np.array([theirs[key] for key in both], dtype=np.float32)
        tolerance = EQUAL if name == "nms" else OFFSETS
        yield compare(f"perimg_{name}, {len(both)} scores", torch.tensor([ours[k] for k in both]), recorded, tolerance)


def _by_box_and_class(boxes: Tensor, classes: Tensor, scores: Tensor) -> dict[tuple[Any, ...], float]:
    keys = ((*(round(x, 2) for x in box), label) for box, label in zip(boxes.tolist(), classes.tolist(), strict=True))
    return dict(zip(keys, scores.tolist(), strict=True))


def rate_rows(golden: Path) -> Iterator[Row]:
    """The learning rate and weight decay that the optimizer of a folder gives to every parameter."""
    for name, folder in RATES.items():
        recorded = json.loads(gzip.decompress((golden / f"{name}.json.gz").read_bytes()))
        experiment = load_experiment(PLAYGROUND / "lvis1.0" / folder)
        with torch.device("meta"):
            model = experiment.build_model()
        schedule = experiment.config.schedule
        names = {id(parameter): key for key, parameter in model.named_parameters()}
        groups = build_optimizer(model, schedule).param_groups
        rates = {names[id(p)]: schedule.lr * group["lr_scale"] for group in groups for p in group["params"]}
        if rates.keys() != recorded["lr"].keys():
            yield impossible(f"{name}: other parameters")
            continue
        theirs = np.array(list(recorded["lr"].values()))
        ours = torch.tensor([rates[key] for key in recorded["lr"]], dtype=torch.float64)
        yield compare(f"{name}, {len(theirs)} parameters", ours, theirs)
        decays = torch.tensor(sorted({group["weight_decay"] for group in groups}), dtype=torch.float64)
        yield compare(f"{name}, weight decays", decays, np.array(recorded["weight_decay_all_params"]))

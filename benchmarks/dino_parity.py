"""How far DINO is from recorded runs of the reference detector, tensor by tensor.

    python benchmarks/dino_parity.py ../shared/golden/dino_tiny

Writes the largest absolute difference of every recorded tensor, also relative to the tensor's largest value, and its
tolerance to benchmarks/dino_parity.md. Exit status 1 if any tolerance is missed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dino_parity_parts import Recorder, eva01_rows, operator_rows, pair_detections
from parity import Row, compare, gradient_row, write_table
from safetensors.torch import load_file
from torch import Tensor

from cvpods_ext.config.detection import QueryDetector
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.detection.postprocess import finish
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.denoising import Noise, draw_noise
from cvpods_ext.modeling.detr.matcher import Predictions, solve
from cvpods_ext.modeling.detr.model import DINO
from cvpods_ext.modeling.detr.queries import anchor_logits, refine
from cvpods_ext.modeling.images import normalize_and_pad
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.structures import Batch, Targets

FEATURES = 2e-5  # of a tensor's largest value; the README beside the record suggests all four
BOXES = 1e-5
LOSSES = 1e-5
GRADIENTS = 1e-4
CASES = ("main", "one_group", "first_empty", "all_empty", "dn_off")
STAGES = (Stage(2, 16, 8), Stage(2, 32, 8), Stage(2, 64, 16), Stage(2, 80, 20))
PREDICTIONS = ("aux0", "last", "enc")  # in the order of the criterion
WIDTH = 64


class DinoGolden:
    """One recorded folder: a tiny DINO on EVA-02 or on a ResNet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.inputs, self.forward, self.train = (np.load(folder / f"{n}.npz") for n in ("inputs", "forward", "train"))
        self.grad_norms = json.loads((folder / "grad_norms.json").read_text())

    def model(self, case: str = "") -> DINO:
        """The tiny detector with the recorded weights; it makes the draws of a training `case`."""
        number = self.meta["train_cases"][case]["dn_number_argument"] if case else 0
        settings = QueryDetector(
            width=WIDTH,
            hidden=128,
            encoder_layers=2,
            decoder_layers=2,
            queries=50,
            detections_per_image=100,
            denoising_number=number,
        )
        model = dino(settings, num_classes=20, backbone=self.backbone(), draw=partial(self.replay, case))
        model.load_state_dict(load_file(self.folder / "weights.safetensors"))
        return model

    def backbone(self) -> SimplePyramid | ResNet:
        """The one whose weights were recorded."""
        if "resnet" in self.meta["model"]:
            return ResNet(STAGES, stem_channels=16, stride_in_1x1=False, freeze_at=1)
        net = eva02_of(Size(96, 4, 3), image_side=128, window=4, global_blocks=(1, 3))
        return SimplePyramid(net, WIDTH, finest=3)

    def batch(self, case: str = "main") -> Batch:
        """Both images; some cases lack the objects of the first or of all."""
        images, targets = [], []
        for i in range(2):
            image = torch.from_numpy(self.inputs[f"image{i}"])
            boxes, labels = (torch.from_numpy(self.inputs[f"gt_{n}_img{i}"]) for n in ("boxes", "classes"))
            keep = slice(0, 0) if case == "all_empty" or (case == "first_empty" and i == 0) else slice(None)
            size, original = (image.shape[1], image.shape[2]), tuple(self.inputs["output_hw"][i].tolist())
            targets.append(Targets(boxes[keep], labels[keep], image_id=i, size=size, original_size=original))
            images.append(image)
        return Batch(images, targets)

    def replay(self, case: str, rows: int, num_classes: int, device: torch.device) -> Noise:
        """The recorded draws, which the reference makes only for the rows that get a new label."""
        if not rows:
            return draw_noise(rows, num_classes, device)
        chance, labels, signs, shares = (
            torch.from_numpy(self.train[f"{case}_draw{i}_{name}"])
            for i, name in enumerate(("label_p", "new_label", "sign01", "box_part"))
        )
        every = torch.zeros(rows, dtype=torch.int64)
        every[chance < 0.25] = labels
        return Noise(chance, every, signs * 2.0 - 1.0, shares)


@torch.no_grad()
def forward_rows(golden: DinoGolden) -> Iterator[Row]:
    """Everything between image and predictions at test time, then the detections."""
    model, batch = golden.model().eval(), golden.batch()
    recorder = Recorder(model)
    found = model.detect(batch)
    ours = dict(_forward_tensors(model, batch, recorder))
    for name, recorded in golden.forward.items():
        if name in ours:
            yield compare(name, ours[name], recorded, BOXES if "box" in name or "reference" in name else FEATURES)
    for i, raw in enumerate(found):
        for kind, one in (("raw", raw), ("det", finish(raw, batch.targets[i]))):
            theirs = {key: golden.forward[f"{kind}_img{i}_{key}"] for key in ("boxes", "scores", "classes")}
            order = pair_detections(one.boxes, one.labels, theirs["boxes"], theirs["classes"])
            yield compare(f"{kind}_img{i}_boxes", one.boxes[order], theirs["boxes"], BOXES)
            yield compare(f"{kind}_img{i}_scores", one.scores[order], theirs["scores"], FEATURES)
            yield compare(f"{kind}_img{i}_classes", one.labels[order], theirs["classes"])


def _forward_tensors(model: DINO, batch: Batch, recorder: Recorder) -> Iterator[tuple[str, Tensor]]:
    """Our values under the recorded names; more than one folder holds."""
    padded, _ = normalize_and_pad(batch.images, model.pixel_mean, model.pixel_std, model.backbone.padded_size)
    yield "preprocessed_every8", padded[:, :, ::8, ::8]
    yield "padded_shape", torch.tensor(padded.shape)
    maps = recorder.output("backbone")
    if isinstance(model.backbone, ResNet):
        yield from ((f"res{i + 2}", map_) for i, map_ in enumerate(maps))
    else:
        yield "last_feat", recorder.output("backbone.net")
        yield from ((f"p{i + 3}", map_) for i, map_ in enumerate(maps))
    yield from ((f"neck_{i}", map_) for i, map_ in enumerate(recorder.output("neck")))
    memory, position = recorder.inputs("transformer.encoder")
    levels, start = memory.levels, 0
    for i, ((rows, columns), mask) in enumerate(zip(levels.sizes, levels.padding, strict=True)):
        of_level = position[:, start : start + rows * columns] - model.transformer.level_embeds[i]
        yield f"mask_{i}", mask
        yield f"pos_{i}", of_level.transpose(1, 2).unflatten(2, (rows, columns))
        start += rows * columns
    sizes = torch.tensor(levels.sizes)
    yield "spatial_shapes", sizes
    yield "level_start_index", sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
    yield "valid_ratios", levels.valid_ratios
    yield "encoder_reference_points", levels.reference_points()
    yield "encoder_layer0_attn_plus_identity", recorder.inputs("transformer.encoder.layers.0.norms.0")[0]
    for i in range(2):
        yield f"encoder_layer{i}", recorder.output(f"transformer.encoder.layers.{i}")
    yield from _proposal_tensors(model, recorder)
    yield from _decoder_tensors(model, recorder)


def _proposal_tensors(model: DINO, recorder: Recorder) -> Iterator[tuple[str, Tensor]]:
    memory = recorder.inputs("transformer.decoder")[2]
    anchors = anchor_logits(memory.levels)
    outside = anchors.isinf()
    states = model.transformer.project(memory.tokens.masked_fill(outside[..., :1], 0.0))
    logits = model.class_embed[-1](states)
    proposals = model.transformer.propose(memory)
    yield "output_proposals", anchors
    yield "output_memory", states
    yield "enc_outputs_class", logits
    yield "enc_outputs_delta", model.bbox_embed[-1](states)
    yield "topk_proposals", proposals.index
    yield "topk_scores", logits.amax(dim=-1).gather(1, proposals.index)
    yield "enc_state", proposals.states
    yield "enc_pred_logits", proposals.logits
    yield "enc_pred_boxes", proposals.boxes


def _decoder_tensors(model: DINO, recorder: Recorder) -> Iterator[tuple[str, Tensor]]:
    decoded = recorder.output("transformer.decoder")
    prefix = "transformer.decoder.layers"
    for i in range(2):
        _, position, references, *_ = recorder.inputs(f"{prefix}.{i}")
        yield f"decoder_layer{i}_reference_input", references
        yield f"decoder_layer{i}_query_pos", position
        yield f"decoder_layer{i}_sine", recorder.inputs("transformer.decoder.ref_point_head", i)[0]
        yield f"decoder_layer{i}_selfattn_plus_identity", recorder.inputs(f"{prefix}.{i}.norms.0")[0]
        yield f"decoder_layer{i}_crossattn_plus_identity", recorder.inputs(f"{prefix}.{i}.norms.1")[0]
        yield f"decoder_layer{i}_out", recorder.output(f"{prefix}.{i}")
    yield "decoder_query", recorder.inputs("transformer.decoder")[0]
    yield "inter_states", decoded.states
    yield "init_reference", decoded.references[0]
    refined = refine(model.bbox_embed[1], recorder.output(f"{prefix}.1"), decoded.references[1])
    yield "inter_references", torch.stack((decoded.references[1], refined))
    logits, boxes = model.predict(decoded)
    yield "pred_logits", logits
    yield "pred_boxes", boxes


def train_rows(golden: DinoGolden, case: str) -> Iterator[Row]:
    """One recorded training step: denoising queries, predictions, assignment, losses, gradients."""
    model, batch = golden.model(case).train(), golden.batch(case)
    recorder = Recorder(model)
    losses = model(batch)
    yield from _train_tensor_rows(golden, case, dict(_train_tensors(model, recorder)))
    yield from _match_rows(golden, case, model, recorder)
    recorded = golden.meta["train_losses_weighted"][case]
    assert losses.keys() | {"total"} == recorded.keys(), (losses.keys(), recorded.keys())
    total = torch.stack(list(losses.values())).sum()
    for name, loss in (losses | {"total": total}).items():
        yield compare(f"{case}: {name}", loss, recorded[name], LOSSES)
    total.backward()
    yield gradient_row(case, model, golden.grad_norms[case], GRADIENTS)
    for key in golden.train:
        if case == "main" and key.startswith("grad/"):
            gradient = model.get_parameter(key.removeprefix("grad/")).grad
            assert gradient is not None, key
            yield compare(key, gradient, golden.train[key], GRADIENTS)


def _train_tensors(model: DINO, recorder: Recorder) -> Iterator[tuple[str, Tensor]]:
    predictions, denoised, denoising, objects, _ = recorder.inputs("criterion")
    yield from (
        pair
        for i, count in enumerate(objects.counts)
        for pair in (
            (f"target_img{i}_labels", objects.labels[i, :count]),
            (f"target_img{i}_boxes", objects.boxes[i, :count]),
        )
    )
    count = denoised.boxes.shape[2]
    yield "dn_query_label", model.label_enc(denoising.labels) * denoising.filled[..., None]
    yield "dn_query_bbox", denoising.box_logits
    yield "attn_mask", denoising.blocked(predictions.boxes.shape[2])
    if count:
        yield "dn_pred_logits", denoised.logits
        yield "dn_pred_boxes", denoised.boxes
    yield from ((k, v) for k, v in _decoder_tensors(model, recorder) if not k.startswith("pred_"))
    yield "enc_state", recorder.inputs("bbox_embed.2")[0]
    yield "pred_logits", predictions.logits[:-1]
    yield "pred_boxes", predictions.boxes[:-1]
    yield "enc_pred_logits", predictions.logits[-1]
    yield "enc_pred_boxes", predictions.boxes[-1]


def _train_tensor_rows(golden: DinoGolden, case: str, ours: dict[str, Tensor]) -> Iterator[Row]:
    for key, recorded in golden.train.items():
        name = key.removeprefix(f"{case}_")
        if name != key and not name.startswith(("draw", "match_")):
            yield compare(key, ours[name], recorded, BOXES if "box" in name else FEATURES)


def _match_rows(golden: DinoGolden, case: str, model: DINO, recorder: Recorder) -> Iterator[Row]:
    predictions, _, _, objects, _ = recorder.inputs("criterion")
    cost = model.criterion.matching_cost(Predictions(*(x.detach() for x in predictions)), objects)
    found = torch.from_numpy(solve(cost.numpy(), objects.counts))
    for k, which in enumerate(PREDICTIONS):
        for i, count in enumerate(objects.counts):
            name = f"{case}_match_{which}_img{i}"
            if f"{name}_src" in golden.train:
                _, _, query, of = found[:, (found[0] == k) & (found[1] == i)]
                yield compare(f"{name}_src", query, golden.train[f"{name}_src"])
                yield compare(f"{name}_tgt", of, golden.train[f"{name}_tgt"])
            if f"{name}_cost" in golden.train:
                yield compare(f"{name}_cost", cost[k, i, :, :count], golden.train[f"{name}_cost"], FEATURES)


def all_rows(golden: DinoGolden) -> Iterator[Row]:
    """Everything that was recorded for one network."""
    yield from forward_rows(golden)
    for case in CASES:
        yield from train_rows(golden, case)


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("golden", type=Path, help="the folder dino_tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    torch.backends.mkldnn.enabled = False  # its 3x3 convolutions alone would be off by 9e-4
    parts: dict[str, Any] = {
        "DINO on EVA-02": all_rows(DinoGolden(options.golden)),
        "DINO on a ResNet": all_rows(DinoGolden(options.golden / "resnet")),
        "operators": operator_rows(np.load(options.golden / "ops.npz")),
        "EVA-01": eva01_rows(np.load(options.golden / "eva01_backbone.npz")),
    }
    command = "python benchmarks/dino_parity.py ../shared/golden/dino_tiny"
    return write_table(options.out, command, {title: list(rows) for title, rows in parts.items()})


if __name__ == "__main__":
    raise SystemExit(main())

"""How far UperNet on EVA-02 is from recorded runs of the reference segmentor, tensor by tensor.

    python benchmarks/upernet_parity.py ../shared/golden

Writes the largest absolute difference of every recorded tensor, also relative to the tensor's largest value, and its
tolerance to benchmarks/upernet_parity.md. Exit status 1 if any tolerance is missed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity import EQUAL, LOSSES, Row, compare, write_table
from safetensors.torch import load_file
from torch import Tensor, nn
from upernet_parity_data import metric_rows, pipeline_rows
from upernet_parity_optim import optimizer_rows

from cvpods_ext.modeling.backbones.eva02 import Size
from cvpods_ext.modeling.segmentation import inference
from cvpods_ext.modeling.segmentation.backbone import eva02_multi_scale
from cvpods_ext.modeling.segmentation.heads import FCNHead, UPerHead
from cvpods_ext.modeling.segmentation.inference import TestScales
from cvpods_ext.modeling.segmentation.losses import PixelCrossEntropy
from cvpods_ext.modeling.segmentation.segmentor import Segmentor
from cvpods_ext.structures import Batch
from cvpods_ext.structures.pixels import resize_bilinear
from cvpods_ext.structures.segmentation import LabelMap

PIXELS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
GRADIENTS = 2e-5  # of a gradient's largest value
NORMS = 2e-4  # of a gradient's norm; on one thread that of one norm's bias, which is 0.02, is off by 1e-4
POOLED_GRADIENTS = 2e-3  # behind a batch norm over two values, which magnifies rounding; 7e-4 with two threads
BIAS_BEFORE_NORM = ("backbone.fpn1.0.bias", "backbone.fpn1.3.bias", "backbone.fpn2.0.bias")  # zero in theory
NOISE = 1e-6
NAMES = {"decode.loss_ce": "loss_decode", "decode.acc_seg": "acc_decode", "aux.loss_ce": "loss_aux"}
NAMES["aux.acc_seg"] = "acc_aux"


class UperGolden:
    """The recorded folder and the tiny segmentor of our parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.forward = np.load(folder / "forward_train.npz")
        self.inference = np.load(folder / "inference.npz")

    def model(self, *, dropout: float = 0.0, drop_path: float = 0.0) -> Segmentor:
        """The tiny segmentor with the recorded weights."""
        side = self.meta["model"]["img"]
        model = Segmentor(
            backbone=eva02_multi_scale(Size(96, 4, 3), taps=(0, 1, 2, 3), crop_side=side, drop_path=drop_path),
            decode_head=UPerHead([96] * 4, 48, 20, dropout=dropout),
            auxiliary_head=FCNHead(96, 32, 20, dropout=dropout),
            loss=PixelCrossEntropy(),
            scales=TestScales(short=side, long=4 * side, crop=side, stride=self.meta["model"]["stride"]),
            pixel_statistics=PIXELS,
        )
        model.load_state_dict(load_file(self.folder / "weights.safetensors"))
        return model

    def batch(self) -> Batch:
        """Both training crops."""
        images = torch.from_numpy(self.forward["train_images_rgb_u8"]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(self.forward["train_labels_u8"])
        size = (labels.shape[1], labels.shape[2])
        targets: Any = [LabelMap(each, i, size, size) for i, each in enumerate(labels)]
        return Batch(list(images), targets)

    def image(self, name: str) -> Tensor:
        """uint8 (3, H, W) of a recorded test image."""
        return torch.from_numpy(self.inference[name]).permute(2, 0, 1)


class Outputs:
    """Outputs and inputs of the modules that ran last, by name."""

    def __init__(self, model: nn.Module) -> None:
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(lambda _, given, out, name=name: self._keep(name, given, out))

    def _keep(self, name: str, given: tuple, out: Any) -> None:
        if isinstance(out, Tensor):
            self.outputs[name] = out.clone()
        if given and isinstance(given[0], Tensor):
            self.inputs[name] = given[0].clone()


def recorded_places(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    """Name in the record and our tensor of every intermediate result."""
    out, given = outputs.outputs, outputs.inputs
    yield "patch_embed_out", out["backbone.patch_embed"].permute(0, 3, 1, 2)
    yield "block0_norm1", out["backbone.blocks.0.norm1"]
    yield "block0_attn", out["backbone.blocks.0.attn"]
    yield "block0_mlp", out["backbone.blocks.0.mlp"]
    for i in range(4):
        yield f"block{i}_out", out[f"backbone.blocks.{i}"]
        yield f"scaled{i}", out[f"backbone.fpn{i + 1}"]
        yield f"psp_pool{i}", out[f"decode_head.psp_modules.{i}"]
    for i in range(3):
        yield f"lateral{i}", out[f"decode_head.lateral_convs.{i}"]
        yield f"topdown{i}", given[f"decode_head.fpn_convs.{i}"]
        yield f"fpn_conv{i}", out[f"decode_head.fpn_convs.{i}"]
    yield "psp_bottleneck", out["decode_head.bottleneck"]
    yield "fused", out["decode_head.fpn_bottleneck"]
    yield "aux_feat", out["auxiliary_head.convs"]


@torch.no_grad()
def forward_rows(golden: UperGolden) -> Iterator[Row]:
    """Every intermediate result at test time, and the losses that the test-time network would have."""
    model, batch, record = golden.model().eval(), golden.batch(), golden.forward
    outputs = Outputs(model)
    crops, _ = model.preprocess(batch)
    yield compare("train_images_normalised_img0", crops[0], record["train_images_normalised_img0"])
    maps = model.backbone(crops)
    logits, auxiliary = model.decode_head(maps), model.auxiliary_head(maps[2])  # pyright: ignore[reportOptionalCall]
    for name, ours in recorded_places(outputs):
        yield compare(f"eval_img0_{name}", ours[:1], record[f"eval_img0_{name}"])
    yield compare("eval_logits", logits, record["eval_logits"])
    yield compare("eval_aux_logits", auxiliary, record["eval_aux_logits"])
    yield from value_rows("eval", model.losses(batch), golden.meta["eval_mode_losses"])
    everything: Any = batch.targets
    ignored = [LabelMap(torch.full_like(t.labels, 255), t.image_id, t.size, t.size) for t in everything]
    losses = model.losses(Batch(batch.images, ignored))  # pyright: ignore[reportArgumentType]
    yield from value_rows("all ignored", losses, golden.meta["all_ignored_losses"])


def value_rows(case: str, ours: dict[str, Tensor], recorded: dict[str, float]) -> Iterator[Row]:
    """Losses and accuracies of one case."""
    assert ours.keys() == {NAMES[name] for name in recorded}, ours.keys()
    for name, value in recorded.items():
        yield compare(f"{case}: {name}", ours[NAMES[name]], value, LOSSES)


class ChannelMask(nn.Module):
    """Dropout of whole channels with the recorded draws."""

    def __init__(self, keep: np.ndarray, rate: float) -> None:
        super().__init__()
        self.scale = torch.from_numpy(keep).float()[:, :, None, None] / (1 - rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.scale


class BranchMask(nn.Module):
    """Stochastic depth with the recorded draws: the attention's first, then the MLP's."""

    def __init__(self, draws: list[tuple[float, list[int]]]) -> None:
        super().__init__()
        self.draws = list(draws)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, C)."""
        rate, keep = self.draws.pop(0)
        return x * torch.tensor(keep)[:, None, None] / (1 - rate)


def prepared(golden: UperGolden, case: str) -> Segmentor:
    """The segmentor of a training case, its random parts replaced by the recorded draws."""
    recorded = golden.meta[case]
    if case == "train_droppath":
        model = golden.model(drop_path=recorded["max_rate"])
        for i in range(3):
            block: Any = model.backbone.get_submodule(f"blocks.{i + 1}")
            block.drop_path = BranchMask(recorded["draws"][2 * i : 2 * i + 2])
    else:
        model = golden.model()
    if case == "train_dropout":
        for head, name in ((model.decode_head, "decode"), (model.auxiliary_head, "aux")):
            keep = golden.forward[f"train_dropout_keepmask_{name}"]
            head.dropout = ChannelMask(keep, recorded["p"])  # pyright: ignore[reportOptionalMemberAccess]
    return model.train()


def training_rows(golden: UperGolden, case: str) -> Iterator[Row]:
    """Losses and gradients of one case; statistics of batch norm where they were recorded."""
    model = prepared(golden, case)
    outputs = Outputs(model)
    losses = model(golden.batch())
    yield from value_rows(case, losses, golden.meta[case]["losses"])
    total = torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum()
    yield compare(f"{case}: total", total, golden.meta[case]["total"], LOSSES)
    total.backward()
    yield from gradient_rows(model, case, golden.meta[case]["grad_norms"])
    if case == "train_nodrop":
        yield from whole_rows(model, outputs, golden.forward)


def gradient_rows(model: Segmentor, case: str, recorded: dict[str, float]) -> Iterator[Row]:
    """The parameter whose gradient norm is furthest off, and how far those are from zero that are zero in theory."""
    rows = []
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        norm = parameter.grad.double().norm().item()
        if name in BIAS_BEFORE_NORM:
            yield Row(f"{case}: |grad| {name}", norm, norm, NOISE)
            continue
        off = abs(norm - recorded[name])
        tolerance = POOLED_GRADIENTS if "psp_modules.0" in name else NORMS
        rows.append(Row(f"{case}: gradient norms, {name}", off, off / recorded[name], tolerance))
    assert len(rows) + len(BIAS_BEFORE_NORM) == len(recorded)
    yield max(rows, key=lambda row: row.relative / row.tolerance)


def whole_rows(model: Segmentor, outputs: Outputs, record: Any) -> Iterator[Row]:
    """What was recorded entry by entry of the case without random parts."""
    places = dict(recorded_places(outputs))
    places["logits"] = outputs.outputs["decode_head"]
    for key in record:
        kind, _, name = key.partition("/")
        if kind == "train_nodrop_bn_after":
            yield compare(key, model.get_buffer(name), record[key])
        elif key.endswith("pos_embed_rows0_1_last"):
            gradient: Any = model.get_parameter("backbone.pos_embed").grad
            yield compare(key, gradient[0, [0, 1, -1]], record[key], GRADIENTS)
        elif kind == "train_nodrop_grad" and name not in BIAS_BEFORE_NORM:
            gradient = model.get_parameter(name).grad
            tolerance = POOLED_GRADIENTS if "psp_modules.0" in name else GRADIENTS
            yield compare(key, gradient, record[key], tolerance)
        elif key == "train_nodrop_aux_logits":
            yield compare(key, outputs.outputs["auxiliary_head"], record[key])
        elif key.startswith("train_nodrop_") and "_img0" in key:
            ours = places[key.removeprefix("train_nodrop_").replace("img0_", "").replace("_img0", "")]
            yield compare(key, ours[:1], record[key], LOSSES)


@torch.no_grad()
def inference_rows(golden: UperGolden) -> Iterator[Row]:
    """One crop, sliding window, one scale and six scales mirrored; label maps must be equal but for ties."""
    model, record = golden.model().eval(), golden.inference
    probabilities, scales = inference.probabilities, model.scales
    whole = inference.slide_logits(
        model.preprocess(golden.batch())[0][0], scales.crop, scales.stride, model.crop_logits
    )
    (strip,) = inference.resize_in_strips(whole, tuple(golden.meta["inference"]["whole"]["ori_shape"]))
    yield from map_rows("whole", strip.softmax(dim=0), record, 4)
    flipped = whole.softmax(dim=0).flip(2)
    yield compare("whole_flip_norescale", flipped[:, ::4, ::4], record["whole_flip_norescale_prob_every4"])

    image = golden.image("slide_image_rgb_u8")
    logits = inference.slide_logits(model.normalise(image), scales.crop, scales.stride, model.crop_logits)
    yield compare("slide_logits_every5", logits[:, ::5, ::5], record["slide_logits_every5"])
    yield label_row("slide", logits, record)
    count = torch.zeros(image.shape[1:], dtype=torch.int64)
    for y, x in inference.windows((image.shape[1], image.shape[2]), scales.crop, scales.stride):
        count[y : y + scales.crop, x : x + scales.crop] += 1
    yield compare("slide_window_count", count, record["slide_window_count"])

    image = golden.image("pipe_image_rgb_u8")
    size = (image.shape[1], image.shape[2])
    (resized,) = scales.sizes(size)
    yield compare("single_input", model.normalise(resize_bilinear(image, resized)), record["single_input"], EQUAL)
    found = probabilities(image, size, scales, model.normalise, model.crop_logits)
    yield from map_rows("single", found, record, 4)
    yield from multi_scale_rows(golden, model, image)


def multi_scale_rows(golden: UperGolden, model: Segmentor, image: Tensor) -> Iterator[Row]:
    """Six ratios, each plain and mirrored: class means of every pass, two passes in pixels, and the mean of all."""
    recorded, record, size = golden.meta["inference"]["ms"], golden.inference, (image.shape[1], image.shape[2])
    for i, augmentation in enumerate(recorded["augs"]):
        scales = several_scales(golden, (augmentation["ratio"],))
        for raw, _, flipped in inference.passes(image, scales, model.normalise, model.crop_logits):
            if flipped != augmentation["flip"]:
                continue
            assert list(raw.shape[1:]) == augmentation["img_shape"]
            found = torch.cat(list(inference.resize_in_strips(raw, size)), dim=1).softmax(dim=0)
            found = found.flip(2) if flipped else found
            name, means = f"ms_aug{i}", np.array(augmentation["prob_mean_per_class"])
            yield compare(f"{name}_prob_mean_per_class", found.mean(dim=(1, 2)), means)
            if f"{name}_prob_every4" in record:
                yield compare(f"{name}_prob_every4", found[:, ::4, ::4], record[f"{name}_prob_every4"])
    scales = several_scales(golden, tuple(recorded["ratios"]))
    yield from map_rows(
        "ms", inference.probabilities(image, size, scales, model.normalise, model.crop_logits), record, 4
    )


def several_scales(golden: UperGolden, ratios: tuple[float, ...]) -> TestScales:
    """The recorded crop and stride with other ratios, mirrored; the long side is free, as in every such test."""
    side, stride = golden.meta["model"]["img"], golden.meta["model"]["stride"]
    return TestScales(short=side, long=10**6, crop=side, stride=stride, ratios=ratios, flip=True)


def map_rows(name: str, probabilities: Tensor, record: Any, every: int) -> Iterator[Row]:
    """Probabilities of every few pixels, and the label map."""
    yield compare(f"{name}_prob_every{every}", probabilities[:, ::every, ::every], record[f"{name}_prob_every{every}"])
    yield label_row(name, probabilities, record)


def label_row(name: str, values: Tensor, record: Any) -> Row:
    """Labels of all pixels whose two best classes are further apart than rounding."""
    wrong = (values.argmax(dim=0).numpy() != record[f"{name}_label"]) & (record[f"{name}_margin"] > 1e-4)
    return compare(f"{name}_label", torch.from_numpy(wrong), np.zeros_like(wrong))


def rotary_rows(golden: UperGolden) -> Iterator[Row]:
    """The rows of the rotary table that were recorded."""
    model, weights = golden.model(), load_file(golden.folder / "weights.safetensors")
    for kind in ("cos", "sin"):
        name = f"backbone.rope.freqs_{kind}"
        fresh = eva02_multi_scale(Size(96, 4, 3), taps=(0, 1, 2, 3), crop_side=128).get_buffer(f"rope.freqs_{kind}")
        yield compare(f"computed {name}", fresh, weights[name].numpy())
        assert torch.equal(model.get_buffer(name), weights[name].float())


def all_rows(golden: UperGolden) -> Iterator[Row]:
    """Everything that was recorded."""
    yield from rotary_rows(golden)
    yield from forward_rows(golden)
    for case in ("train_nodrop", "train_dropout", "train_droppath"):
        yield from training_rows(golden, case)
    yield from optimizer_rows(golden)
    yield from inference_rows(golden)
    yield from metric_rows(golden.folder)
    yield from pipeline_rows(golden.folder)


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("golden", type=Path, help="folder that holds upernet_tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    parts = {"upernet_tiny": list(all_rows(UperGolden(options.golden / "upernet_tiny")))}
    return write_table(options.out, "python benchmarks/upernet_parity.py ../shared/golden", parts)


if __name__ == "__main__":
    raise SystemExit(main())

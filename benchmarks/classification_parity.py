"""How far EVA-02 classifiers are from recorded runs of mmpretrain, the authors' code and timm, tensor by tensor.

    python benchmarks/classification_parity.py ../shared/golden

Writes the largest absolute difference of every recorded tensor, also relative to the tensor's largest value, and its
tolerance to benchmarks/classification_parity.md. Exit status 1 if any tolerance is missed.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from parity import LOSSES, Row, compare, write_table
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from cvpods_ext.data.classification_transforms import ShortEdgeCrop
from cvpods_ext.modeling.backbones.eva02 import RotaryTable, Size
from cvpods_ext.modeling.backbones.vit import resize_positions
from cvpods_ext.modeling.classification.backbone import eva02_features
from cvpods_ext.modeling.classification.classifier import ImageClassifier
from cvpods_ext.modeling.classification.heads import LinearHead
from cvpods_ext.modeling.classification.losses import SmoothedCrossEntropy
from cvpods_ext.modeling.weights import load_into

CLIP = ((122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.32316305))
GRADIENTS = 2e-5  # of a gradient's norm
EPS = 2e-5  # of the largest value, where the record was made with another eps
MMPRETRAIN_EPS = 1e-5  # mmpretrain's; the authors and timm have 1e-6


class ClassificationGolden:
    """The recorded folder and the classifiers of our parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.record = np.load(folder / "eva02_cls.npz")

    def small(
        self, kind: str, weights: dict[str, Tensor] | None = None, *, eps: float = 1e-6, key_bias: bool = False
    ) -> ImageClassifier:
        """The small classifier (`kind` subln or nosubln), with mmpretrain's weights under mmpretrain's names."""
        model = classifier(Size(96, 3, 3, sub_norm=kind == "subln"), side=70, num_classes=11, key_bias=key_bias)
        load_into(model, weights or self.weights(kind), f"small_{kind}")
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps
        return model.eval()

    def weights(self, kind: str, *, key_bias: bool = False) -> dict[str, Tensor]:
        """The recorded state dict; with `key_bias` the biases that the record calls kbias."""
        state = {name: value.float() for name, value in load_file(self.folder / f"small_{kind}.safetensors").items()}
        start = f"small_{kind}/kbias/"
        for key in self.record if key_bias else ():
            if key.startswith(start) and key.endswith(".bias"):
                name = key.removeprefix(start)
                query, _, value = state[name].chunk(3)
                state[name] = torch.cat((query, torch.from_numpy(self.record[key]), value))
        return state

    def tiny(self) -> ImageClassifier:
        """The real EVA-02-Ti at 336 pixels with the weights of the recorded recipe, under the authors' names."""
        model = classifier("Ti", side=336, num_classes=1000)
        load_into(model, self.tiny_weights(), "eva02_Ti")
        return model.eval()

    def tiny_weights(self) -> dict[str, Tensor]:
        """Drawn by the recipe that meta.json states."""
        shapes = self.meta["real_tiny_official_keys"]
        return {name: drawn(name, shape) for name, shape in shapes.items() if "freqs" not in name}


def classifier(size: str | Size, *, side: int, num_classes: int, key_bias: bool = False) -> ImageClassifier:
    """A classifier with a linear head and label smoothing, as recorded."""
    backbone = eva02_features(size, image_side=side, key_bias=key_bias)
    return ImageClassifier(
        backbone=backbone,
        fc_norm=nn.LayerNorm(backbone.channels, eps=1e-6),
        head=LinearHead(backbone.channels, num_classes),
        loss=SmoothedCrossEntropy(0.1),
        pixel_statistics=CLIP,
    )


def drawn(name: str, shape: list[int]) -> Tensor:
    """A tensor of the recorded recipe: normal numbers seeded by the name, scaled by its kind."""
    n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(int(np.prod(shape))).reshape(shape)
    if len(shape) == 1 and name.endswith(".weight"):
        n = 1 + 0.25 * n.astype(np.float32)
    elif len(shape) == 1 or "token" in name or "pos_embed" in name:
        n = 0.3 * n.astype(np.float32)
    else:
        n = n.astype(np.float32) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(n, np.float32))


@torch.no_grad()
def table_rows(golden: ClassificationGolden) -> Iterator[Row]:
    """Rotary tables and resized position tables of several grids, square or not."""
    record = golden.record
    for (rows, columns), name in (((5, 5), "rope_5x5"), ((6, 7), "rope_6x7")):
        table = RotaryTable((rows, columns), 32)
        yield compare(f"{name}_cos", table.freqs_cos, record[f"{name}_official_cos"])
        if f"{name}_official_sin" in record:
            yield compare(f"{name}_sin", table.freqs_sin, record[f"{name}_official_sin"])
    positions = torch.from_numpy(record["pos_embed_5x5"])
    for grid in ((6, 7), (8, 8), (3, 4)):
        resized = torch.cat((positions[:, :1], resize_positions(positions, grid).flatten(1, 2)), dim=1)
        yield compare(f"pos_embed_to_{grid[0]}x{grid[1]}", resized, record[f"pos_embed_to_{grid[0]}x{grid[1]}"])


@torch.no_grad()
def small_rows(golden: ClassificationGolden, kind: str) -> Iterator[Row]:
    """Every intermediate result of the small classifier, in mmpretrain's eps and in the authors'."""
    record, start = golden.record, f"small_{kind}/official/"
    model = golden.small(kind, eps=MMPRETRAIN_EPS)
    images = list(torch.from_numpy(record["small_images_rgb_u8"]).permute(0, 3, 1, 2))
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out))
    inputs = model.preprocess(images)
    yield compare(f"{kind}: input", inputs, record["small_input"])
    features = model.extract_feat(images)
    logits = model.head(features)  # pyright: ignore[reportOptionalCall]
    for i in range(3):
        yield compare(f"{kind}: block {i}", found[f"backbone.blocks.{i}"], record[f"{start}block{i}_out"])
    yield compare(f"{kind}: attention 0", found["backbone.blocks.0.attn"], record[f"{start}attn0"])
    yield compare(f"{kind}: MLP 0", found["backbone.blocks.0.mlp"], record[f"{start}mlp0"])
    backbone: Any = model.backbone
    tokens = backbone.all_tokens(inputs)
    yield compare(f"{kind}: all tokens", tokens, record[f"{start}out_raw"])
    yield compare(f"{kind}: class token", tokens[:, 0], record[f"{start}out_cls_token"])
    yield compare(f"{kind}: feature map", backbone.feature_map(inputs), record[f"{start}out_featmap"])
    yield compare(f"{kind}: features", features, record[f"{start}feat"])
    yield compare(f"{kind}: logits", logits, record[f"{start}logits"])
    scores = logits.softmax(dim=1)
    yield compare(f"{kind}: scores", scores, record[f"{start}pred_score"])
    yield compare(f"{kind}: labels", scores.argmax(dim=1), record[f"{start}pred_label"])
    other = torch.from_numpy(record["small_other_input_84x98"])
    resized = model.head(model.fc_norm(model.backbone(other)))  # pyright: ignore[reportOptionalCall]
    yield compare(f"{kind}: logits of 84 x 98", resized, record[f"{start}other_size_logits"])
    ours = golden.small(kind)
    logits = ours.head(ours.extract_feat(images))  # pyright: ignore[reportOptionalCall]
    yield compare(f"{kind}: logits, eps 1e-6", logits, record[f"small_{kind}/official_eps1e-6/logits"])
    yield compare(f"{kind}: eps 1e-6 against 1e-5", logits, record[f"{start}logits"], EPS)
    biased = golden.small(kind, golden.weights(kind, key_bias=True), eps=MMPRETRAIN_EPS, key_bias=True)
    logits = biased.head(biased.extract_feat(images))  # pyright: ignore[reportOptionalCall]
    yield compare(f"{kind}: logits with a bias on keys", logits, record[f"small_{kind}/kbias/logits"])


def training_rows(golden: ClassificationGolden, kind: str) -> Iterator[Row]:
    """Loss with label smoothing, loss of mixed images, and the gradient norm that is furthest off."""
    record, stated = golden.record, golden.meta[f"small_loss_{kind}"]
    model = golden.small(kind, eps=MMPRETRAIN_EPS, key_bias=True)
    inputs, labels = torch.from_numpy(record["small_input"]), torch.tensor(stated["labels"])

    def loss(images: Tensor, targets: Tensor) -> Tensor:
        features = model.fc_norm(model.backbone(images))
        return model.loss(model.head(features), targets)  # pyright: ignore[reportOptionalCall]

    value = loss(inputs, labels)
    yield compare(f"{kind}: loss", value, stated["loss"], LOSSES)
    mix = stated["mixup"]
    shares, partner, kept = F.one_hot(labels, 11).float(), mix["partner"], mix["lam"]
    mixed = loss(kept * inputs + (1 - kept) * inputs[partner], kept * shares + (1 - kept) * shares[partner])
    yield compare(f"{kind}: loss of mixed images", mixed, mix["loss"], LOSSES)
    value.backward()
    yield from gradient_rows(model, kind, stated["grad_norms"])


def gradient_rows(model: ImageClassifier, kind: str, recorded: dict[str, float]) -> Iterator[Row]:
    """Gradient norms of the record's fused layers, whose parts lie in several parameters of ours."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        theirs = mmpretrain_name(name)
        squares[theirs] = squares.get(theirs, 0.0) + parameter.grad.double().square().sum().item()
    assert squares.keys() == recorded.keys(), squares.keys() ^ recorded.keys()
    rows = []
    for name, square in squares.items():
        off = abs(square**0.5 - recorded[name])
        rows.append(Row(f"{kind}: gradient norms, {name}", off, off / recorded[name], GRADIENTS))
    yield max(rows, key=lambda row: row.relative)


def mmpretrain_name(name: str) -> str:
    """The tensor of an mmpretrain checkpoint that holds a parameter of ours."""
    for ours, theirs in (
        ("backbone.blocks.", "backbone.layers."),
        ("patch_embed.proj.", "patch_embed.projection."),
        ("fc_norm.", "backbone.ln2."),
        ("head.", "head.fc."),
        *((f"attn.{x}_proj.weight", "attn.qkv.weight") for x in "qkv"),
        *((f"attn.{x}", "attn.qkv.bias") for x in ("q_bias", "k_proj.bias", "v_bias")),
        *((f"mlp.{x}.", "mlp.w12.") for x in ("w1", "w2")),
        ("mlp.ffn_ln.", "mlp.norm."),
    ):
        name = name.replace(ours, theirs)
    return name


@torch.no_grad()
def tiny_rows(golden: ClassificationGolden) -> Iterator[Row]:
    """The real EVA-02-Ti: a photo through the test transform, blocks, features and logits."""
    record, model = golden.record, golden.tiny()
    photo = Image.fromarray(np.ascontiguousarray(record["photo_bgr"][..., ::-1]))
    crop = ShortEdgeCrop(336)(photo)
    yield compare("Ti: crop of 336", crop.flip(0), record["crop_336_bgr_chw_u8"])
    inputs = model.preprocess([crop])
    yield compare("Ti: input", inputs[0, :, ::7, ::7], record["input_336_every7"])
    found: dict[int, Tensor] = {}
    backbone: Any = model.backbone
    for i in (0, 5, 11):
        backbone.blocks[i].register_forward_hook(lambda _, __, out, i=i: found.__setitem__(i, out))
    features = model.extract_feat([crop])
    rows = golden.meta["real_tiny_rows_of_block_outputs"]
    for i, out in found.items():
        yield compare(f"Ti: block {i}", out[0, rows], record[f"real_tiny/block{i}_rows"])
    yield compare("Ti: features", features[0], record["real_tiny/feat_official"])
    logits = model.head(features)[0]  # pyright: ignore[reportOptionalCall]
    yield compare("Ti: logits, authors", logits, record["real_tiny/logits_official"])
    yield compare("Ti: logits, timm", logits, record["real_tiny/logits_timm"])
    yield compare("Ti: logits, mmpretrain", logits, record["real_tiny/logits_mmpretrain"], EPS)
    yield compare("Ti: scores, mmpretrain", logits.softmax(0), record["real_tiny/prob_mmpretrain"], 5 * EPS)
    yield compare("Ti: label", logits.argmax(), np.array(golden.meta["real_tiny_pred"]["pred_label"]))


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden", type=Path)
    golden = ClassificationGolden(parser.parse_args().golden / "eva02_cls")
    parts = {"tables": list(table_rows(golden)), "EVA-02-Ti at 336 pixels": list(tiny_rows(golden))}
    for kind in ("subln", "nosubln"):
        parts[f"small, {kind}"] = [*small_rows(golden, kind), *training_rows(golden, kind)]
    page = Path(__file__).with_suffix(".md")
    return write_table(page, "python benchmarks/classification_parity.py ../shared/golden", parts)


if __name__ == "__main__":
    raise SystemExit(main())

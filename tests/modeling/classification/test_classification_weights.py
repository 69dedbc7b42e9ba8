"""Published classifiers load under the names of the authors, of mmpretrain and of timm, and what differs is told."""

import gzip
import json
import zlib

import pytest
import timm
import torch
from shared import shared
from torch import nn

from cvpods_ext.errors import ConfigError, WeightsError
from cvpods_ext.modeling.backbones.class_token import eva02_blocks
from cvpods_ext.modeling.backbones.eva02 import RotaryTable, Size
from cvpods_ext.modeling.classification.backbone import eva02_features
from cvpods_ext.modeling.classification.classifier import ImageClassifier
from cvpods_ext.modeling.classification.heads import LinearHead
from cvpods_ext.modeling.classification.losses import SmoothedCrossEntropy
from cvpods_ext.modeling.segmentation.backbone import MultiScaleViT
from cvpods_ext.modeling.weights import load_into
from cvpods_ext.structures import Batch
from cvpods_ext.structures.classification import ImageClass

ROWS = json.loads(shared("golden/eva02_cls/cls_rows.json").read_text())["rows"]
SIZES = {"tiny": "Ti", "small": "S", "base": "B", "large": "L"}
SMALL = Size(96, 3, 3)


def classifier(size="Ti", side=70, patch=14, num_classes=11, key_bias=False):
    backbone = eva02_features(size, image_side=side, patch=patch, key_bias=key_bias)
    return ImageClassifier(
        backbone=backbone,
        fc_norm=nn.LayerNorm(backbone.channels, eps=1e-6),
        head=LinearHead(backbone.channels, num_classes) if num_classes else None,
        loss=SmoothedCrossEntropy(),
        pixel_statistics=((0.0,) * 3, (1.0,) * 3),
    )


def seeded(name, shape):
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator) * 0.1


def manifest(row):
    with gzip.open(shared(f"golden/manifests_seg_cls/{row['manifest']}.json.gz")) as file:
        return json.load(file)["params"]


def with_manifest():
    folder = shared("golden/manifests_seg_cls")
    return [row for row in ROWS if (folder / f"{row['manifest']}.json.gz").exists()]


@pytest.mark.parametrize("row", with_manifest(), ids=lambda row: row["seed_name"])
def test_names_and_shapes_of_mmpretrain_fill_every_parameter(row):
    with torch.device("meta"):
        model = classifier(
            SIZES[row["arch"]], side=row["img_size"], patch=row["patch"], num_classes=1000 * row["head"], key_bias=True
        )
        state = {name: torch.empty(shape) for name, shape in manifest(row).items()}
    report = load_into(model, state, row["seed_name"])
    assert (report.missing, report.skipped, report.unexpected) == ([], [], [])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == row["params"] == sum(value.numel() for value in state.values())


@pytest.mark.parametrize("row", with_manifest(), ids=lambda row: row["seed_name"])
def test_names_and_shapes_of_timm_fill_every_parameter_of_the_published_sizes(row):
    if row["timm_name"] is None:
        pytest.skip("timm has no such weights")
    with torch.device("meta"):
        theirs = timm.create_model(row["timm_name"].partition(".")[0], num_classes=1000 * row["head"])
        model = classifier(SIZES[row["arch"]], side=row["img_size"], patch=row["patch"], num_classes=1000 * row["head"])
    report = load_into(model, theirs.state_dict(), row["timm_name"])
    assert (report.missing, report.skipped, report.unexpected) == ([], [], [])
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "eva02_small_patch14_224"])
@torch.no_grad()
def test_timm_gives_the_same_features_and_logits(name):
    theirs = timm.create_model(name, num_classes=7).eval()
    for parameter, value in theirs.named_parameters():
        value.copy_(seeded(parameter, value.shape) + float(parameter.endswith("norm.weight")))
    model = classifier("Ti" if "tiny" in name else "S", side=224, num_classes=7).eval()
    load_into(model, theirs.state_dict(), name)
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = theirs(images.float())
    scores = model.predict(Batch(list(images), [ImageClass(-1, 1, (224, 224), (224, 224))]))
    torch.testing.assert_close(scores, expected.softmax(dim=1), rtol=1e-4, atol=1e-6)
    features = theirs.fc_norm(theirs.forward_features(images.float())[:, 1:].mean(dim=1))
    torch.testing.assert_close(model.extract_feat(images), features, rtol=1e-4, atol=1e-4)


def official(model):
    """The tensors of a classifier of ours under the names of the authors' B and L files."""
    return {
        name.removeprefix("backbone."): seeded(name, value.shape) if value.ndim else value
        for name, value in model.state_dict().items()
    }


def mmpretrain(state, key_bias=0.0):
    """The authors' tensors fused and named as mmpretrain has them."""
    renamed = {}
    for name, value in state.items():
        if "freqs" in name or "_proj" in name or name.endswith(("_bias", "w2.weight", "w2.bias")):
            continue
        name = name.replace("blocks.", "layers.").replace("patch_embed.proj", "patch_embed.projection")
        name = name.replace("fc_norm", "ln2").replace("ffn_ln", "norm")
        if ".w1." in name:
            other = name.replace("layers.", "blocks.").replace(".w1.", ".w2.")
            name, value = name.replace(".w1.", ".w12."), torch.cat((value, state[other]))
        renamed[f"head.fc.{name[5:]}" if name.startswith("head.") else f"backbone.{name}"] = value
    for i in range(3):
        start = f"blocks.{i}.attn."
        qkv = torch.cat([state[f"{start}{x}_proj.weight"] for x in "qkv"])
        bias = [state[f"{start}q_bias"], torch.full_like(state[f"{start}q_bias"], key_bias), state[f"{start}v_bias"]]
        renamed |= {f"backbone.layers.{i}.attn.qkv.weight": qkv, f"backbone.layers.{i}.attn.qkv.bias": torch.cat(bias)}
    return renamed


def test_the_three_namings_give_the_same_model():
    model = classifier(SMALL)
    state = official(model)
    timm_state = {
        name.replace("mlp.w1.", "mlp.fc1_g.")
        .replace("mlp.w2.", "mlp.fc1_x.")
        .replace("mlp.w3.", "mlp.fc2.")
        .replace("ffn_ln", "norm")
        .replace("attn.q_bias", "attn.q_proj.bias")
        .replace("attn.v_bias", "attn.v_proj.bias"): value
        for name, value in state.items()
        if "freqs" not in name
    }
    for naming in (state, timm_state, mmpretrain(state)):
        loaded = classifier(SMALL)
        report = load_into(loaded, naming, "weights")
        assert report.is_complete
        for name, value in loaded.named_parameters():
            assert torch.equal(value, state[name.removeprefix("backbone.")]), name


def test_a_bias_on_keys_is_refused_unless_the_backbone_has_one():
    state = mmpretrain(official(classifier(SMALL)), key_bias=0.25)
    with pytest.raises(WeightsError, match=r"\(blocks\.0\.attn\.k_proj\.bias, up to 0\.25\).*key_bias=True"):
        load_into(classifier(SMALL), state, "mm.pth")
    model = classifier(SMALL, key_bias=True)
    assert load_into(model, state, "mm.pth").is_complete
    assert (model.backbone.blocks[2].attn.k_proj.bias == 0.25).all()


def test_the_other_eps_of_mmpretrain_is_told():
    report = load_into(classifier(SMALL), mmpretrain(official(classifier(SMALL))), "mm.pth")
    assert "normalised with eps 1e-5, where this model has the 1e-6" in report.summary()


def test_rotary_tables_of_another_size_are_told_and_not_taken():
    model = classifier(SMALL)
    own = model.backbone.rope.freqs_cos.clone()
    state = official(model)
    state |= {name: torch.zeros(16, 16, 32) for name in state if "freqs" in name}
    report = load_into(model, state, "pretraining.pt")
    assert len(report.recomputed) == 8
    assert "of another input size, computed for this model (8):" in report.summary()
    assert torch.equal(model.backbone.rope.freqs_cos, own)


def test_rotary_tables_that_differ_from_the_authors_are_taken_and_told():
    model = classifier(SMALL)
    state = official(model)
    tables = {name.removeprefix("backbone."): v.clone() for name, v in model.state_dict().items() if "freqs" in name}
    assert not load_into(classifier(SMALL), state | tables, "same.pt").notes[1:]
    report = load_into(model, state | {name: v + 0.5 for name, v in tables.items()}, "mmpretrain_own.pt")
    assert any("rotary tables of the file" in note and "0.5" in note for note in report.notes)
    assert torch.equal(model.backbone.rope.freqs_cos, tables["rope.freqs_cos"] + 0.5)


def test_what_pre_training_alone_needs_reaches_no_classifier():
    state = official(classifier(SMALL, num_classes=0)) | {name: torch.ones(96) for name in ("norm.weight", "norm.bias")}
    state |= {"mask_token": torch.ones(1, 1, 96), "lm_head.weight": torch.ones(4, 96)}
    report = load_into(classifier(SMALL), {n: v for n, v in state.items() if "fc_norm" not in n}, "mim.pt")
    assert set(report.missing) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}


def test_the_class_token_of_pre_training_reaches_segmentation():
    rope = RotaryTable(4, 8)
    model = MultiScaleViT(
        16, eva02_blocks(Size(16, 4, 2), rope, 0.0), taps=range(4), image_side=64, patch=16, rope=rope
    )
    state = {n: seeded(n, v.shape) for n, v in model.state_dict().items() if "fpn" not in n and "freqs" not in n}
    load_into(nn.ModuleDict({"backbone": model}), state, "mim.pt")
    assert torch.equal(model.cls_token, state["cls_token"])


def test_without_a_head_there_are_features_and_no_classes():
    model = classifier(SMALL, num_classes=0).eval()
    image = torch.randint(0, 256, (3, 70, 70), dtype=torch.uint8)
    assert model.extract_feat([image]).shape == (1, 96)
    with pytest.raises(ConfigError, match=r"no classifier.*extract_feat.*Fine-tune"):
        model(Batch([image], [ImageClass(-1, 1, (70, 70), (70, 70))]))
    with pytest.raises(ConfigError, match="not a multiple of the patch side 14"):
        eva02_features("Ti", image_side=72)

import gzip
import json

import pytest
import torch
from shared import shared
from torch import nn

from cvpods_ext.config import Schedule
from cvpods_ext.engine.optim import build_optimizer, layer_factors
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid


def detector(size, global_blocks):
    """The backbone and one layer that is none."""
    with torch.device("meta"):
        backbone = SimplePyramid(eva02(size, global_blocks=global_blocks))
        return nn.ModuleDict({"backbone": backbone, "roi_heads": nn.LayerNorm(4)})


@pytest.mark.parametrize(
    ("size", "global_blocks", "decay", "groups"),
    [("B", (2, 5, 8, 11), 0.7, 14), ("L", (5, 11, 17, 23), 0.8, 26)],
)
def test_every_backbone_parameter_has_the_published_factor_and_decay(size, global_blocks, decay, groups):
    path = shared(f"golden/lr_decay_eva02_{size}_{decay}.json.gz")
    published = json.loads(gzip.decompress(path.read_bytes()))["factor"]
    model = detector(size, global_blocks)
    factors = layer_factors(model, decay)
    backbone = {name for name in published if name.startswith("backbone.")}
    assert {name for name in factors if name.startswith("backbone.")} == backbone
    assert {name: factors[name] for name in backbone} == pytest.approx({name: published[name] for name in backbone})
    assert factors["roi_heads.weight"] == 1.0

    schedule = Schedule(optimizer="adamw", lr=1e-4, weight_decay=0.1, layer_decay=decay, decay_norms=True)
    optimizer = build_optimizer(model, schedule)
    assert len(optimizer.param_groups) == groups
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: scale[id(p)] for name, p in model.named_parameters()} == pytest.approx(factors)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.999), 1e-8)


def test_factors_by_hand():
    inner = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(1, 1)])})
    backbone = {
        "patch_embed": nn.Linear(1, 1),
        "blocks": nn.ModuleList([nn.Linear(1, 1), inner]),
        "neck": nn.Linear(1, 1),
    }
    head = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(1, 1)])})
    model = nn.ModuleDict({"backbone": nn.ModuleDict(backbone), "head": head})
    factors = {name.removesuffix(".weight"): f for name, f in layer_factors(model, 0.5).items() if "bias" not in name}
    assert factors == {
        "backbone.patch_embed": 0.125,
        "backbone.blocks.0": 0.25,
        "backbone.blocks.1.blocks.0": 0.5,
        "backbone.neck": 1.0,
        "head.blocks.0": 1.0,
    }


def test_a_backbone_without_blocks_is_refused_unless_there_is_no_decay():
    model = nn.ModuleDict({"backbone": nn.Linear(1, 1)})
    with pytest.raises(ConfigError, match=r"schedule\.layer_decay=0\.7 needs a transformer backbone"):
        layer_factors(model, 0.7)
    assert set(layer_factors(model, 1.0).values()) == {1.0}

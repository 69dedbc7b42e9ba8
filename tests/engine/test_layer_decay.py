import gzip
import json

import pytest
import torch
from shared import shared
from torch import nn

from cvpods_ext.config import Schedule
from cvpods_ext.engine.optim import build_optimizer, layer_factors, rate_factors
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


class Layered(nn.Module):
    """Two layers that name themselves, and a norm behind them that belongs to neither."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(1, 1), nn.Linear(1, 1), nn.LayerNorm(1)

    def layer_groups(self):
        return [list(self.first.parameters()), list(self.second.parameters())]


def test_factors_by_hand():
    model = nn.ModuleDict({"trunk": Layered(), "blocks": nn.ModuleList([nn.Linear(1, 1)])})
    factors = {name.removesuffix(".weight"): f for name, f in layer_factors(model, 0.5).items() if "bias" not in name}
    assert factors == {"trunk.first": 0.25, "trunk.second": 0.5, "trunk.norm": 1.0, "blocks.0": 1.0}


def test_layer_decay_and_multipliers_are_combined():
    model = nn.ModuleDict({"trunk": Layered()})
    schedule = Schedule(layer_decay=0.5, lr_multipliers=((r"trunk\..*", 0.1),))
    assert rate_factors(model, schedule)["trunk.first.weight"] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("parts", "found"),
    [({"stages": nn.ModuleDict({"blocks": nn.Linear(1, 1)})}, "none"), ({"a": Layered(), "b": Layered()}, "2")],
    ids=["a staged transformer", "two backbones"],
)
def test_layer_decay_needs_one_backbone_that_names_its_layers(parts, found):
    model = nn.ModuleDict(parts)
    with pytest.raises(ConfigError, match=rf"schedule\.layer_decay=0\.7 needs one backbone .* has {found}"):
        layer_factors(model, 0.7)
    assert set(layer_factors(model, 1.0).values()) == {1.0}

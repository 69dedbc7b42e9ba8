"""schedule.compile: the same names, nearly the same numbers, and a clear word where it cannot work."""

import pytest
import torch
from processes import final_state, losses, train
from torch import nn

from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.engine.distributed.parallel import compile_backbone
from cvpods_ext.errors import ConfigError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def test_names_stay_as_they_are():
    model = Net()
    names = list(model.state_dict())
    compile_backbone(model)
    assert list(model.state_dict()) == names


def test_a_network_without_a_backbone_is_refused():
    with pytest.raises(ConfigError, match="Linear has no module called backbone"):
        compile_backbone(nn.Linear(2, 2))


@pytest.mark.parametrize("wanted", [None, "no-such-compiler"])
def test_without_a_compiler_the_way_out_is_told(monkeypatch, tmp_path, wanted):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", wanted) if wanted else monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.*schedule\.compile=False"):
        compile_backbone(Net())


def test_shards_are_refused():
    with pytest.raises(ConfigError, match=r"schedule\.compile is for replicated models only"):
        override(DetectionConfig(), schedule=dict(compile=True, sharding="shard"))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_mini_network_trains_as_it_does_without(tmp_path, ranks):
    from tiny_experiment import make_data, make_experiment

    experiment = make_experiment(tmp_path / "experiment", make_data(tmp_path))
    (experiment / "net.py").write_text(MINI)
    settings = ("schedule.iters=4", "schedule.lr=0.01", "schedule.ema_decay=0.0", "model.train_only=()")
    outputs = tmp_path / "eager", tmp_path / "compiled"
    assert train(experiment, outputs[0], *settings, ranks=ranks) == [0] * ranks
    assert train(experiment, outputs[1], *settings, "schedule.compile=True", ranks=ranks) == [0] * ranks
    eager, compiled = (torch.tensor(losses(output)) for output in outputs)
    torch.testing.assert_close(compiled[0], eager[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled, eager, rtol=1e-2, atol=1e-3)  # rounding differs, and with it the weights
    eager, compiled = map(final_state, outputs)
    assert eager.keys() == compiled.keys()
    assert any("running_mean" in name for name in eager)


MINI = """
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn
from cvpods_ext.modeling.necks.fpn import narrow_resnet_fpn


def build_model(cfg):
    classes = num_classes(cfg.data, cfg.folder)
    return mask_rcnn_fpn(cfg.model, num_classes=classes, backbone=narrow_resnet_fpn())
"""

"""Converted files load like their originals, notes included."""

import pickle

import numpy as np
import torch
from weight_cases import caffe2_resnet, model_of

from cvpods_ext.modeling.weights import load_into, read
from cvpods_ext.modeling.weights.writer import converted, write_safetensors


def test_a_converted_caffe2_file_loads_like_the_original(tmp_path):
    rng = np.random.default_rng(0)
    blobs = {blob: rng.random(shape, dtype=np.float32) for blob, (_, shape) in caffe2_resnet(width=32).items()}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(blobs))
    state, metadata = converted(read(tmp_path / "R-50.pkl"), "R-50.pkl")
    write_safetensors(tmp_path / "new/R-50.safetensors", state, metadata)
    names = {"backbone.bottom_up." + name: torch.zeros_like(value) for name, value in state.items()}
    models = [model_of(names, buffers=("norm.weight", "norm.bias", "running_mean", "running_var")) for _ in range(2)]
    reports = [
        load_into(model, read(tmp_path / file), "R-50")
        for model, file in zip(models, ("R-50.pkl", "new/R-50.safetensors"), strict=True)
    ]
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert reports[0] == reports[1]
    assert any("BGR" in note for note in reports[1].notes)


def test_layer_versions_survive_conversion(tmp_path):
    torch.save({"model": torch.nn.BatchNorm2d(2).state_dict()}, tmp_path / "a.pth")
    state, metadata = converted(read(tmp_path / "a.pth"), "a.pth")
    write_safetensors(tmp_path / "a.safetensors", state, metadata)
    assert read(tmp_path / "a.safetensors").metadata["versions"] == {"": 2}


def test_tensors_that_share_memory_are_written(tmp_path):
    whole = torch.arange(6.0)
    write_safetensors(tmp_path / "a.safetensors", {"a": whole, "b": whole[::2], "c": whole}, {})
    assert read(tmp_path / "a.safetensors").state["b"].tolist() == [0, 2, 4]

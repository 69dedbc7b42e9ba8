import shutil
from types import SimpleNamespace

import pytest
import torch
import torchvision

from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime import environment


def test_the_report_names_versions_cores_and_memory():
    found = {**environment.versions(), **environment.devices()}
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert int(found["cores"]) >= 1
    assert found["memory"].endswith("GiB")


def test_an_old_torch_is_a_known_problem(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.3.1+cpu")
    with pytest.raises(ConfigError, match=r"torch 2\.3\.1.*older than 2\.11.*pip install"):
        environment.check_torch_pair()
    assert any("older than 2.11" in problem for problem in environment.problems())


def test_a_torchvision_of_another_torch_is_a_known_problem(monkeypatch):
    def missing(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", missing)
    assert any("nms does not exist" in problem and "pip install" in problem for problem in environment.problems())


def test_little_shared_memory_is_a_known_problem(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=64 << 20))
    assert any("--shm-size" in problem for problem in environment.problems())

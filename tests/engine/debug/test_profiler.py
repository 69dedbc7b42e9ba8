import json

import pytest
import torch

from cvpods_ext.config.run_options import RunOptions
from cvpods_ext.engine.debug.profiler import Profile, debug_modes


def test_deterministic_algorithms_are_asked_for_and_given_back():
    with debug_modes(RunOptions(deterministic=True)):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_anomaly_detection_names_the_operation():
    value = torch.zeros(1, requires_grad=True)
    with (
        debug_modes(RunOptions(anomaly=True)),
        pytest.warns(UserWarning, match="Error detected"),
        pytest.raises(RuntimeError, match="SqrtBackward"),
    ):
        (value.sqrt() * 0).sum().backward()
    assert not torch.is_anomaly_enabled()


@pytest.mark.parametrize("steps", [5, 20])
def test_a_profile_is_a_chrome_trace_even_of_a_short_run(tmp_path, steps):
    with Profile(tmp_path, enabled=True) as profile:
        for _ in range(steps):
            torch.ones(3).add(1)
            profile.step()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(event["name"] == "aten::add" for event in events)


def test_without_being_asked_nothing_is_written(tmp_path):
    with Profile(tmp_path, enabled=False) as profile:
        for _ in range(20):
            profile.step()
    assert list(tmp_path.iterdir()) == []

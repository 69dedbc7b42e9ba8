"""Sizes of a detector that cannot be built are refused where they are written."""

import pytest

from cvpods_ext.config import apply_overrides
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.errors import ConfigError


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.roi_foreground=1.5", "model.roi_foreground is a share between 0 and 1, got 1.5"),
        ("model.anchors_per_image=0", "model.anchors_per_image must be at least 1, got 0"),
        ("model.box_fc=()", r"model.box_fc needs one or more numbers above 0, got \(\)"),
        ("model.cascade_ious=(0.7, 0.5)", "model.cascade_ious must rise from stage to stage"),
        ("model.head_norm=IN", "model.head_norm must be one of '', 'BN', 'GN', 'LN'"),
    ],
)
def test_impossible_sizes_are_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        apply_overrides(DetectionConfig(), [assignment])


def test_the_width_of_box_features_is_that_of_the_last_layer():
    assert DetectionConfig().model.box_features == 1024
    assert apply_overrides(DetectionConfig(), ["model.box_fc=(64, 32)"]).model.box_features == 32

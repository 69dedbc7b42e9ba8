"""What ViTDet has behind the pyramid, and EVA-02 with it, beside the parts that all detectors share.

Shapes: R = RoIs of the batch, D = feature width, C = foreground classes.
"""

from __future__ import annotations

from torch import Tensor

from cvpods_ext.modeling.calibration import Calibration
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.detection.build import Recipe

BOX_FEATURES = 1024

# Two convolutions propose, four convolutions and one layer classify, everything is normalised over channels.
VITDET = Recipe(
    rpn_convs=2,
    box_convs=(256,) * 4,
    box_fc=(BOX_FEATURES,),
    head_norm="LN",
    float32_heads=True,
)


class FederatedClassifier(Calibration):
    """A linear classifier; its published files also hold the weights by which the federated loss draws classes.

    They are computed from the class counts and kept only so that files fit in both directions.
    """

    fed_loss_cls_weights: Tensor

    def __init__(self, image_counts: Tensor, in_features: int = BOX_FEATURES, power: float = 0.5) -> None:
        super().__init__(LinearClassifier(in_features, len(image_counts)))
        self.register_buffer("fed_loss_cls_weights", image_counts.float() ** power)

"""Starting points of the DINO experiments: boxes only, 12 epochs of COCO.

Recipe values: DINO (Zhang et al., https://arxiv.org/abs/2203.03605) and its EVA configs as released in detrex. The
script behind the published L models ignores the layer decay of its configs: it trains whatever is called backbone, and
the sampling offsets, at a tenth of the rate. Rates here are those that the published models were trained with.
"""

from __future__ import annotations

from cvpods_ext.config.bases import MINI
from cvpods_ext.config.bases_eva02 import MIM
from cvpods_ext.config.decay import MultiStep
from cvpods_ext.config.detection import DetectionConfig, QueryDetector
from cvpods_ext.config.override import override

# torchvision's ResNet-50 for RGB images, with the stride in the 3x3 convolutions.
TORCHVISION_R50 = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"

DINO_COCO = override(
    DetectionConfig(model=QueryDetector()),
    data=dict(
        train="coco_2017_train",
        test="coco_2017_val",
        channels="RGB",
        train_sizes=tuple(range(480, 801, 32)),
    ),
    model=dict(init=TORCHVISION_R50),
    schedule=dict(
        iters=90_000,
        decay=MultiStep(drops=(11 / 12,)),
        warmup_iters=0,
        lr=1e-4,
        optimizer="adamw",
        decay_norms=True,
        clip_norm=0.1,
        lr_multipliers=((r"backbone\..*", 0.1),),
    ),
    test=dict(metrics=("bbox",), max_detections=100),
)

# Squares cut out of images that large-scale jitter resizes; the backbone learns by layer decay.
_SQUARE = dict(lsj_side=1024, test_size=1024, test_max_size=1024)
DINO_EVA02_COCO = override(
    DINO_COCO,
    data=_SQUARE,
    model=dict(init=MIM + "eva02_B_pt_in21k_p14to16.pt"),
    schedule=dict(layer_decay=0.7, lr_multipliers=(), images_per_device=1),
)

DINO_EVA02_L_COCO = override(
    DINO_COCO,
    data=_SQUARE,
    model=dict(init=MIM + "eva02_L_pt_m38m_p14to16.pt"),
    schedule=dict(lr=2e-4, lr_multipliers=((r"backbone\..*|.*\.sampling_offsets\..*", 0.1),), images_per_device=1),
)

DINO_LVIS1 = override(
    DINO_COCO,
    data=dict(train="lvis_v1_train", test="lvis_v1_val", sampler="repeat_factor"),
    test=dict(max_detections=300),
)

# LVIS in a box (pods_data synth) at 96 px; a transformer needs more steps than the R-CNNs of the other base.
MINI_DINO = override(
    DetectionConfig(model=QueryDetector(), data=MINI.data, test=MINI.test),
    model=dict(
        width=64,
        heads=4,
        hidden=256,
        encoder_layers=2,
        decoder_layers=3,
        queries=60,
        denoising_number=20,
        detections_per_image=100,
    ),
    schedule=dict(
        iters=1_200,
        decay=MultiStep(drops=(0.8,)),
        warmup_iters=50,
        lr=5e-4,
        batch_size=8,
        images_per_device=8,
        optimizer="adamw",
        clip_norm=0.1,
    ),
    test=dict(metrics=("bbox",)),
    checkpoint_every=400,
    picture_every=400,
)

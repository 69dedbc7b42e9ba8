"""The settings that a cvpods config has before a folder changes any, level by level.

Each level is merged over the one before: base, detection, RCNN, RCNN on a pyramid; or base, classification.
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "MODEL": {
        "DEVICE": "cuda",
        "WEIGHTS": "",
        "AS_PRETRAIN": False,
        "PIXEL_MEAN": [103.53, 116.28, 123.675],
        "PIXEL_STD": [1.0, 1.0, 1.0],
        "DDP_BACKEND": "torch",
    },
    "INPUT": {"AUG": {"TRAIN_PIPELINES": [], "TEST_PIPELINES": []}, "FORMAT": "BGR"},
    "DATASETS": {"CUSTOM_TYPE": ("ConcatDataset", {}), "TRAIN": (), "TEST": ()},
    "DATALOADER": {
        "NUM_WORKERS": 2,
        "ASPECT_RATIO_GROUPING": True,
        "SAMPLER_TRAIN": "DistributedGroupSampler",
        "ENABLE_INF_SAMPLER": True,
        "REPEAT_THRESHOLD": 0.0,
        "FILTER_EMPTY_ANNOTATIONS": True,
    },
    "TRAINER": {
        "NAME": "DefaultRunner",
        "FP16": {"ENABLED": False, "TYPE": "APEX", "OPTS": {"OPT_LEVEL": "O1"}},
        "WINDOW_SIZE": 20,
    },
    "SOLVER": {
        "LR_SCHEDULER": {
            "NAME": "WarmupMultiStepLR",
            "MAX_ITER": 40000,
            "MAX_EPOCH": None,
            "STEPS": (30000,),
            "WARMUP_FACTOR": 0.001,
            "WARMUP_ITERS": 1000,
            "WARMUP_METHOD": "linear",
            "GAMMA": 0.1,
        },
        "OPTIMIZER": {
            "NAME": "D2SGD",
            "BASE_LR": 0.001,
            "BIAS_LR_FACTOR": 1.0,
            "WEIGHT_DECAY": 0.0001,
            "WEIGHT_DECAY_NORM": 0.0,
            "MOMENTUM": 0.9,
        },
        "CLIP_GRADIENTS": {"ENABLED": False, "CLIP_TYPE": "value", "CLIP_VALUE": 1.0, "NORM_TYPE": 2.0},
        "CHECKPOINT_PERIOD": 5000,
        "IMS_PER_BATCH": 16,
        "IMS_PER_DEVICE": 2,
        "BATCH_SUBDIVISIONS": 1,
    },
    "TEST": {
        "EXPECTED_RESULTS": [],
        "EVAL_PERIOD": 0,
        "PRECISE_BN": {"ENABLED": False, "NUM_ITER": 200},
        "ON_FILES": False,
    },
    "OUTPUT_DIR": "./output",
    "SEED": -1,
    "CUDNN_BENCHMARK": False,
    "VIS_PERIOD": 0,
    "GLOBAL": {
        "HACK": 1.0,
        "LOG_INTERVAL": 20,
        "DUMP_TRAIN": True,
        "DUMP_TEST": False,
        "ANGULAR_UPDATE": False,
        "CLEARML": {"ENABLE": False, "PROJECT_NAME": "cvpods", "TASK_NAME": None, "TAGS": None, "OUTPUT_URI": None},
    },
}

_RESNETS: dict[str, Any] = {
    "NUM_CLASSES": None,
    "DEPTH": None,
    "OUT_FEATURES": ["res4"],
    "NUM_GROUPS": 1,
    "NORM": "FrozenBN",
    "ACTIVATION": {"NAME": "ReLU", "INPLACE": True},
    "ZERO_INIT_RESIDUAL": False,
    "WIDTH_PER_GROUP": 64,
    "STRIDE_IN_1X1": True,
    "RES5_DILATION": 1,
    "RES2_OUT_CHANNELS": 256,
    "STEM_OUT_CHANNELS": 64,
    "DEEP_STEM": False,
}

_TEST_SIDES = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)

DETECTION: dict[str, Any] = {
    "MODEL": {
        "LOAD_PROPOSALS": False,
        "MASK_ON": False,
        "KEYPOINT_ON": False,
        "BACKBONE": {"FREEZE_AT": 2},
        "RESNETS": _RESNETS,
        "FPN": {"IN_FEATURES": [], "OUT_CHANNELS": 256, "NORM": "", "FUSE_TYPE": "sum"},
        "ANCHOR_GENERATOR": {
            "SIZES": [[32, 64, 128, 256, 512]],
            "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
            "ANGLES": [[-90, 0, 90]],
            "OFFSET": 0.0,
        },
        "NMS_TYPE": "normal",
    },
    "INPUT": {
        "AUG": {
            "TRAIN_PIPELINES": [
                ("ResizeShortestEdge", {"short_edge_length": (800,), "max_size": 1333, "sample_style": "choice"}),
                ("RandomFlip", {}),
            ],
            "TEST_PIPELINES": [
                ("ResizeShortestEdge", {"short_edge_length": 800, "max_size": 1333, "sample_style": "choice"})
            ],
        },
        "MASK_FORMAT": "polygon",
    },
    "DATASETS": {
        "PROPOSAL_FILES_TRAIN": (),
        "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 2000,
        "PROPOSAL_FILES_TEST": (),
        "PRECOMPUTED_PROPOSAL_TOPK_TEST": 1000,
    },
    "TEST": {
        "KEYPOINT_OKS_SIGMAS": [],
        "DETECTIONS_PER_IMAGE": 100,
        "AUG": {
            "ENABLED": False,
            "MIN_SIZES": _TEST_SIDES,
            "MAX_SIZE": 4000,
            "FLIP": True,
            "EXTRA_SIZES": (),
            "SCALE_FILTER": False,
            "SCALE_RANGES": (),
        },
    },
}

RCNN: dict[str, Any] = {
    "MODEL": {
        "PROPOSAL_GENERATOR": {"NAME": "RPN", "MIN_SIZE": 0},
        "RPN": {
            "IN_FEATURES": ["res4"],
            "BOUNDARY_THRESH": -1,
            "IOU_THRESHOLDS": [0.3, 0.7],
            "IOU_LABELS": [0, -1, 1],
            "BATCH_SIZE_PER_IMAGE": 256,
            "POSITIVE_FRACTION": 0.5,
            "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
            "SMOOTH_L1_BETA": 0.0,
            "LOSS_WEIGHT": 1.0,
            "PRE_NMS_TOPK_TRAIN": 12000,
            "PRE_NMS_TOPK_TEST": 6000,
            "POST_NMS_TOPK_TRAIN": 2000,
            "POST_NMS_TOPK_TEST": 1000,
            "NMS_THRESH": 0.7,
            "NMS_TYPE": "normal",
        },
        "ROI_HEADS": {
            "IN_FEATURES": ["res4"],
            "NUM_CLASSES": 80,
            "IOU_THRESHOLDS": [0.5],
            "IOU_LABELS": [0, 1],
            "BATCH_SIZE_PER_IMAGE": 512,
            "POSITIVE_FRACTION": 0.25,
            "SCORE_THRESH_TEST": 0.05,
            "NMS_THRESH_TEST": 0.5,
            "PROPOSAL_APPEND_GT": True,
        },
        "ROI_BOX_HEAD": {
            "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
            "SMOOTH_L1_BETA": 0.0,
            "POOLER_RESOLUTION": 14,
            "POOLER_SAMPLING_RATIO": 0,
            "POOLER_TYPE": "ROIAlignV2",
            "NUM_FC": 0,
            "FC_DIM": 1024,
            "NUM_CONV": 0,
            "CONV_DIM": 256,
            "NORM": "",
            "CLS_AGNOSTIC_BBOX_REG": False,
            "TRAIN_ON_PRED_BOXES": False,
        },
        "ROI_BOX_CASCADE_HEAD": {
            "BBOX_REG_WEIGHTS": ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
            "IOUS": (0.5, 0.6, 0.7),
        },
        "ROI_MASK_HEAD": {
            "POOLER_RESOLUTION": 14,
            "POOLER_SAMPLING_RATIO": 0,
            "NUM_CONV": 0,
            "CONV_DIM": 256,
            "NORM": "",
            "CLS_AGNOSTIC_MASK": False,
            "POOLER_TYPE": "ROIAlignV2",
        },
    },
}

RCNN_FPN: dict[str, Any] = {
    "MODEL": {
        "RESNETS": {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "BLOCK_IN_FEATURES": "p5"},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 2000,
            "PRE_NMS_TOPK_TEST": 1000,
            "POST_NMS_TOPK_TRAIN": 1000,
            "POST_NMS_TOPK_TEST": 1000,
        },
        "ROI_HEADS": {"IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": {"NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NUM_CONV": 4},
    },
}

CLASSIFICATION: dict[str, Any] = {
    "MODEL": {
        "PIXEL_MEAN": [0.485, 0.456, 0.406],
        "PIXEL_STD": [0.229, 0.224, 0.225],
        "BACKBONE": {"FREEZE_AT": -1},
        "RESNETS": {
            **_RESNETS,
            "OUT_FEATURES": ["linear"],
            "NORM": "BN",
            "ZERO_INIT_RESIDUAL": True,
            "STRIDE_IN_1X1": False,
        },
    },
    "INPUT": {"FORMAT": "RGB"},
    "SOLVER": {"IMS_PER_DEVICE": 32, "OPTIMIZER": {"NAME": "SGD"}},
}

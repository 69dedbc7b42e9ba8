"""DisAlign on the cosine head of a narrow ResNet, shapes of 20 classes.

Question:  which method lifts few-shot classes under one small recipe?
Paper:     DisAlign, https://arxiv.org/abs/2103.16370
Run:       pods_train; pods_test (benchmarks/classification_mini.py runs all of them), after
           resnet.narrow.shapes.48.cos_norm
Cost:      half a minute on a CPU core
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import DISALIGN_PARAMETERS
from cvpods_ext.config.bases_classification import SMALL_CLASSIFIER as BASE

config = override(
    BASE,
    model=dict(init="experiment:resnet.narrow.shapes.48.cos_norm", train_only=DISALIGN_PARAMETERS),
    schedule=dict(iters=100),
)

"""Logit adjustment after training on a narrow ResNet, shapes of 20 classes.

Question:  which method lifts few-shot classes under one small recipe?
Paper:     https://arxiv.org/abs/2007.07314
Run:       pods_test --weights FILE (benchmarks/classification_mini.py runs all of them), where FILE is
           ../resnet.narrow.shapes.48.plain/outputs/model_final.pth
Cost:      no training, one test
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import SMALL_CLASSIFIER as BASE

config = override(BASE, model=dict(init="experiment:resnet.narrow.shapes.48.plain"), schedule=dict(fit="none"))

"""EVA-02-B after masked image modelling on ImageNet-21k, patches of 16 px: features (`eva02_B_pt_in21k_p14to16`).

Paper:     EVA-02, https://arxiv.org/abs/2303.11331
Question:  what do the weights before any fine-tuning give as features of an image?
Run:       cvpods_ext.load("eva02-base-p16_in21k-pre_3rdparty_in21k", weights=FILE).extract_feat(...)
Cost:      no training, no test: there is no classifier
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_FEATURES as BASE
from cvpods_ext.config.bases_classification import MIM

config = override(BASE, model=dict(init=MIM + "eva02_B_pt_in21k_p14to16.pt"))

"""Folders of image classification in the style of cvpods: recipe, network, losses and what is refused."""

import math

import numpy as np
import old_image_folders
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms

from cvpods_ext.compat import photo_pipelines
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.imagenet import DisAlignLinear, GRWCrossEntropyLoss
from cvpods_ext.config import flatten
from cvpods_ext.config.classification import Classifier
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.data import classification_source
from cvpods_ext.data.classification_statistics import training_counts
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.resnet import resnet
from cvpods_ext.modeling.classification import heads
from cvpods_ext.modeling.classification.backbone import MeanOfMap
from cvpods_ext.modeling.classification.build import image_classifier
from cvpods_ext.modeling.classification.losses import WithoutBackground
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.tasks.classification import TASK

FOLDERS = {
    "plain": lambda root: old_image_folders.plain(root / "old"),
    "disalign": lambda root: old_image_folders.aligned(root / "old", "first"),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(old_image_folders.data_root(tmp_path / "datasets")))
    return tmp_path


def test_the_recipe_is_that_of_the_folder(root):
    config = load_experiment(old_image_folders.plain(root / "plain")).config
    flat = flatten(config)
    expected = {
        "data.train": "imagenetlt_train",
        "data.test": "imagenetlt_test",
        "data.image_side": 64,
        "data.crop_area": (0.08, 1.0),
        "data.interpolation": "bilinear",
        "data.flip_probability": 0.5,
        "data.color_jitter": pytest.approx((0.4, 0.4, 0.4, 0.0)),
        "data.channels": "RGB",
        "schedule.iters": 6 * 3,  # epochs of 12 images in batches of 4
        "schedule.optimizer": "sgd",
        "schedule.decay_norms": True,
        "schedule.weight_decay": 5e-4,
        "test.every": 9,
        "checkpoint_every": 6,
        "model.pixel_mean": pytest.approx((123.675, 116.28, 103.53)),
    }
    assert {key: flat[key] for key in expected} == expected
    rates = [config.schedule.decay.share(i, 18) for i in range(18)]
    assert rates == [pytest.approx(0.5 * (1 + math.cos(math.pi * (i // 3) / 6))) for i in range(18)]


def test_the_cosine_of_ten_epochs_has_the_recorded_rates(root):
    folder = old_image_folders.plain(root / "plain", epochs=10)
    decay = load_experiment(folder).config.schedule.decay
    found = [0.1 * decay.share(3 * epoch + 2, 30) for epoch in range(10)]
    recorded = [0.1, 0.09755, 0.09045, 0.07939, 0.06545, 0.05, 0.03455, 0.02061, 0.00955, 0.00245]
    assert found == pytest.approx(recorded, abs=5e-6)


def test_a_test_image_is_what_the_folders_own_transforms_give(root):
    experiment = load_experiment(old_image_folders.plain(root / "plain"))
    pixels = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    own = transforms.Compose([transforms.Resize(73), transforms.CenterCrop(64), transforms.PILToTensor()])
    found = classification_source.test_transform(experiment.config.data)(Image.fromarray(pixels))
    assert torch.equal(found, own(Image.fromarray(pixels)))


@pytest.mark.parametrize(("side", "edge"), [(224, 256), (224, 235), (64, 73), (299, 342), (448, 512), (7, 9)])
def test_the_share_of_a_crop_gives_the_short_edge_back(side, edge):
    assert int(side / photo_pipelines.crop_ratio(side, edge)) == edge


def ours(kind, experiment):
    """The same network from our builders, with the names of the old one."""
    classes, head, loss = 1000, None, None
    if kind == "disalign":
        counts = torch.from_numpy(training_counts(experiment.config.data, experiment.folder))
        head = heads.DisAlignLinear(512, classes)
        loss = WithoutBackground(GroupReweightedCrossEntropy(counts, exponent=1.2))
    settings = Classifier(pixel_mean=(123.675, 116.28, 103.53), pixel_std=(58.395, 57.12, 57.375))
    trunk = resnet(18, norm="BN", stride_in_1x1=False, freeze_at=0)
    return image_classifier(settings, backbone=MeanOfMap(trunk), width=512, num_classes=classes, head=head, loss=loss)


@pytest.mark.parametrize("kind", FOLDERS)
def test_losses_gradients_and_scores_are_those_of_our_own_network(kind, root):
    experiment = load_experiment(FOLDERS[kind](root))
    torch.manual_seed(0)
    old = experiment.build_model().train()
    new = ours(kind, experiment).train()
    state = {name: value for name, value in old.state_dict().items() if not name.startswith("loss_evaluator")}
    trunk = next(iter(new.state_dict())).removesuffix("stem.conv1.weight")
    renamed = {name.replace("network.linear.", "head.").replace("network.", trunk): v for name, v in state.items()}
    new.load_state_dict(renamed)
    if kind == "disalign":  # there frozen norms go on using the statistics of the batch
        for norm in (module for module in new.modules() if hasattr(module, "moves_when_frozen")):
            norm.moves_when_frozen = True
        new.backbone.requires_grad_(False)
        new.head.weight.requires_grad_(False)
        new.head.bias.requires_grad_(False)
    batch = next(TASK.training_batches(experiment, old))
    theirs, mine = old(batch), new(batch)
    assert list(theirs) == list(mine) == ["loss_cls", "acc_top1"]
    torch.testing.assert_close(theirs["loss_cls"], mine["loss_cls"], rtol=1e-6, atol=0)
    theirs["loss_cls"].backward()
    mine["loss_cls"].backward()
    pairs = list(zip(_gradients(old), _gradients(new), strict=True))
    assert len(pairs) == (4 if kind == "disalign" else 62)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    old.eval()
    new.eval()
    torch.testing.assert_close(old.predict(batch), new.predict(batch), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(old.extract_feat(batch.images), new.extract_feat(batch.images))


def _gradients(model):
    return [p.grad for _, p in model.named_parameters() if p.grad is not None]


def test_names_and_what_trains_are_those_of_cvpods(root):
    model = load_experiment(FOLDERS["disalign"](root)).build_model()
    training = {name for name, p in model.named_parameters() if p.requires_grad}
    names = ("logit_scale", "logit_bias", "confidence_layer.weight", "confidence_layer.bias")
    assert training == {f"network.linear.{name}" for name in names}
    state = model.state_dict()
    assert {
        "network.stem.conv1.norm.running_mean",
        "network.res5.1.conv2.weight",
        "loss_evaluator.weight",
    } <= state.keys()
    assert state["network.linear.logit_scale"].shape == (1, 1000)


def test_frozen_norms_move_as_in_cvpods_unless_told_otherwise(root):
    folder = FOLDERS["disalign"](root)
    for overrides, moves in ([], True), (["model.frozen_statistics_move=False"], False):
        experiment = load_experiment(folder, overrides)
        model = experiment.build_model().train()
        before = model.network.stem.conv1.norm.running_mean.clone()
        model(next(TASK.training_batches(experiment, model)))
        assert torch.equal(model.network.stem.conv1.norm.running_mean, before) != moves


def test_last_norms_of_blocks_start_at_zero_and_the_linear_layer_small(root):
    model = load_experiment(FOLDERS["plain"](root)).build_model()
    assert model.network.res3[0].conv2.norm.weight.abs().max() == 0
    assert model.network.linear.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_the_weighted_loss_is_that_of_its_formula():
    counts, logits, labels = [100.0, 10.0, 1.0], torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 1, 0])
    share = torch.tensor(counts, dtype=torch.float64) / 111
    weight = share**-1.2 / (share**-1.2).sum() * 3
    loss = GRWCrossEntropyLoss(num_samples_list=counts, num_classes=3, exp_scale=1.2)
    per_image = weight[labels] * -logits.double().log_softmax(1)[torch.arange(6), labels]
    assert loss(logits, labels).item() == pytest.approx((per_image.sum() / weight[labels].sum()).item(), rel=1e-6)
    assert loss.state_dict().keys() == {"weight"}
    with pytest.raises(ConfigError, match="3 numbers of images for 4 classes"):
        GRWCrossEntropyLoss(num_samples_list=counts, num_classes=4)


def test_disalign_is_its_formula_and_not_the_identity_at_first():
    layer = DisAlignLinear(5, 3, bias=True)
    x = torch.randn(4, 5)
    z = F.linear(x, layer.weight, layer.bias)
    s = torch.sigmoid(x @ torch.full((5, 1), 0.1))
    torch.testing.assert_close(layer(x), (1 + s) * z)
    with pytest.raises(ConfigError, match="has a bias"):
        DisAlignLinear(5, 3, bias=False)


REFUSED = {
    "another step": (
        '[("Torch_G", transforms.Grayscale())]',
        "TRAIN_PIPELINES has Grayscale; possible are",
    ),
    "no crop": ("[]", "TRAIN_PIPELINES has no RandomResizedCrop, which gives images their size"),
    "no square": ('[("T", transforms.RandomResizedCrop((64, 32)))]', r"inputs of \(64, 32\) pixels; only squares"),
    "another side": ('[("T", transforms.RandomResizedCrop(32))]', "training crops have 32 pixels, test crops 64"),
    "another ratio": (
        '[("T", transforms.RandomResizedCrop(64, ratio=(0.5, 2.0)))]',
        r"crops of ratio \(0.5, 2.0\)",
    ),
    "twice": (
        '[("a", transforms.Compose([transforms.RandomResizedCrop(64)])), ("b", transforms.RandomResizedCrop(64))]',
        "has RandomResizedCrop twice",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_pipeline_that_cannot_be_kept_is_refused(what, root):
    pipeline, message = REFUSED[what]
    folder = old_image_folders.plain(root / "plain", after=f"config.INPUT.AUG.TRAIN_PIPELINES = {pipeline}")
    with pytest.raises(ConfigError, match=message):
        load_experiment(folder)


def test_an_uneven_jitter_is_refused():
    aug = AttributeDict()
    aug["TRAIN_PIPELINES"] = [transforms.RandomResizedCrop(8), transforms.ColorJitter(brightness=(0.5, 2.0))]
    aug["TEST_PIPELINES"] = [transforms.Resize(9), transforms.CenterCrop(8)]
    with pytest.raises(ConfigError, match=r"ColorJitter changes brightness from 0.5 to 2.0, unevenly"):
        photo_pipelines.settings(aug)


def test_the_number_of_classes_must_be_that_of_the_data(root):
    with pytest.raises(ConfigError, match=r"RESNETS.NUM_CLASSES is 999, and the training set has 1000 classes"):
        load_experiment(old_image_folders.plain(root / "plain"), ["MODEL.RESNETS.NUM_CLASSES", "999"]).build_model()


def test_features_that_a_network_does_not_have_are_named(root):
    folder = old_image_folders.plain(root / "plain", after='config.MODEL.RESNETS.OUT_FEATURES = ["res6"]')
    with pytest.raises(
        ConfigError, match="OUT_FEATURES has 'res6', and this network has res2, res3, res4, res5, linear"
    ):
        load_experiment(folder).build_model()

"""Every folder's test settings can give its protocol's number, and pods_test gives it for detections that are exact."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cvpods_ext.cli import test as pods_test
from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig, contradictions
from cvpods_ext.config.detection_protocol import COCO, LVIS, protocol_of
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.evaluation.detection.detections import read
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report import published

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground"
DETECTION = ("coco", "lvis0.5", "lvis1.0", "mini", "o365")  # other tasks have protocols of their own
FOLDERS = sorted(
    path.parent
    for name in DETECTION
    for path in (PLAYGROUND / name).glob("*/config.py")
    if not path.parent.name.startswith(("resnet.", "upernet."))
)
SOFT_NMS_ON_COCO = (
    "coco/cascade_mask_rcnn.eva02_B.sfp.coco.lsj1536.60k",
    "coco/cascade_mask_rcnn.eva02_L.sfp.coco.lsj1536.60k",
    "coco/cascade_mask_rcnn.eva02_L.sfp.coco.lsj1536.o365.det.40k",
    "coco/cascade_mask_rcnn.eva02_L.sfp.coco.lsj1536.o365.seg.40k",
)
ON_LVIS = (
    "lvis1.0/cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1536.rfs.fed.40k",
    "lvis1.0/cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.fed.50k",
    "lvis1.0/mask_rcnn.res50.fpn.lvisv1.multiscale.1x",
)


def settings(folder: Path) -> DetectionConfig:
    config = load_experiment(folder).config
    assert isinstance(config, DetectionConfig)
    return config


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_folder_is_tested_with_settings_that_contradict_its_protocol(folder):
    config = settings(folder)
    if isinstance(config.data.test, DatasetFiles):
        assert folder.parent.name == "mini"  # data of one's own, which are compared with nothing published
        return
    protocol = protocol_of(config.data.test)
    assert protocol is not None
    record = published.find(folder.name, config.data.test)
    stated = dict(record.confounders) if record else {}
    if stated.get("max_detections") == config.test.max_detections != protocol.per_image:  # published with another limit
        config = override(config, test=dict(max_detections=protocol.per_image or 100))
    assert contradictions(config, protocol) == {}


@pytest.mark.parametrize(
    ("changed", "protocol", "wrong"),
    [
        (dict(test=dict(max_detections=100)), LVIS, "test.max_detections"),
        (dict(model=dict(detections_per_image=100)), LVIS, "model.detections_per_image"),
        (dict(model=dict(detections_per_class=100)), LVIS, "model.detections_per_class"),
        (dict(model=dict(score_threshold=0.05)), LVIS, "model.score_threshold"),
        (dict(data=dict(test="coco_2017_val")), LVIS, "data.test"),
        (dict(data=dict(test="coco_2017_val"), model=dict(score_threshold=0.1)), COCO, "model.score_threshold"),
        (
            dict(data=dict(test="coco_2017_val"), model=dict(detections_per_image=50)),
            COCO,
            "model.detections_per_image",
        ),
        (dict(data=dict(test="coco_2017_val"), model=dict(suppression="linear")), COCO, "model.detections_per_image"),
    ],
)
def test_what_contradicts_a_protocol_is_named(changed, protocol, wrong):
    assert list(contradictions(override(DetectionConfig(), **changed), protocol)) == [wrong]


CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.schema import DatasetFiles

files = DatasetFiles(annotations={json!r}, images={images!r})
config = override(
    load_experiment({folder!r}).config,
    data=dict(train=files, test=files, test_size={side}, test_max_size={side}, workers=0),
    test=dict(ema=False, pictures=0, metrics=("bbox", "segm")),
)
"""

NET = """
import json

import torch
from torch import nn

from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.detection.build import cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.mask_scoring import rescore
from cvpods_ext.modeling.detection.postprocess import select
from cvpods_ext.modeling.necks.fpn import FPN


class Exact(nn.Module):
    '''Answers with the annotated boxes; the rest is what the folder's settings make of them.'''

    def __init__(self, selection, content):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.selection = selection
        boxes = torch.tensor([one["bbox"] for one in content["annotations"]])
        self.boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
        labels = torch.tensor([one["category_id"] - 1 for one in content["annotations"]])
        self.scores = torch.zeros(len(labels), len(content["categories"]))
        self.scores[torch.arange(len(labels)), labels] = torch.linspace(0.9, 0.5, len(labels))

    def detect(self, batch):
        (target,) = batch.targets
        assert target.size == target.original_size
        limits = torch.tensor(target.size * 2).float()
        found = select(self.scores, lambda rows, _: self.boxes[rows], limits, self.selection)
        if self.selection.maskness_threshold:
            return [rescore(found, self.masks, self.selection)]
        found.mask_probabilities = self.masks(found)
        return [found]

    def masks(self, found):
        return torch.ones(len(found.labels), 28, 28)


def build_model(cfg):
    with open({json!r}) as file:
        content = json.load(file)
    with torch.device("meta"):
        stages = [Stage(1, 8, 8)] * 4
        trunk = FPN(ResNet(stages, stem_channels=8, bottleneck=False, norm="BN", freeze_at=0), channels=8)
        heads = cascade_mask_rcnn_fpn(cfg.model, num_classes=len(content["categories"]), backbone=trunk).roi_heads
    return Exact(heads.selection, content)
"""


def run_on(monkeypatch, root: Path, folder: str, per_category: tuple[int, ...], lvis: bool) -> tuple[Results, Path]:
    """pods_test with a folder's settings on one image with so many objects of each category, all of them found."""
    side, cell = 400, 20
    columns = side // cell
    annotations = []
    for category, count in enumerate(per_category, start=1):
        for _ in range(count):
            i = len(annotations)
            x, y = float(i % columns * cell + 4), float(i // columns * cell + 4)
            polygon = [x, y, x + 12, y, x + 12, y + 12, x, y + 12]
            annotations.append(
                dict(id=i + 1, image_id=1, category_id=category, bbox=[x, y, 12.0, 12.0], area=144.0, iscrowd=0)
                | dict(segmentation=[polygon])
            )
    image = dict(id=1, width=side, height=side, file_name="1.png", coco_url="http://x/val2017/1.png")
    categories = [dict(id=1, name="often"), dict(id=2, name="seldom")]
    if lvis:
        image |= dict(neg_category_ids=[], not_exhaustive_category_ids=[])
        categories = [category | dict(frequency="f") for category in categories]
    (root / "images" / "val2017").mkdir(parents=True)
    for place in ("", "val2017"):
        Image.new("RGB", (side, side)).save(root / "images" / place / "1.png")
    path = root / "objects.json"
    path.write_text(json.dumps(dict(images=[image], annotations=annotations, categories=categories)))
    experiment = root / "experiment"
    experiment.mkdir()
    names = dict(json=str(path), images=str(root / "images"), folder=str(PLAYGROUND / folder), side=side)
    (experiment / "config.py").write_text(CONFIG.format(**names))
    (experiment / "net.py").write_text(NET.replace("{json!r}", repr(str(path))))
    torch.save({"model": {"unused": torch.zeros(1)}}, root / "weights.pth")
    monkeypatch.chdir(experiment)
    monkeypatch.setattr(sys, "argv", ["pods_test", "--device", "cpu", "--weights", str(root / "weights.pth")])
    pods_test.main()
    return Results.read(experiment / "results.json"), experiment


def detections_in(experiment: Path) -> int:
    (shards,) = {path.parent for path in experiment.rglob("*.parquet")}
    return len(read(shards, masks=False).scores)


@pytest.mark.parametrize("folder", SOFT_NMS_ON_COCO)
def test_sixty_exact_detections_of_each_of_two_categories_give_100_ap_on_coco(monkeypatch, tmp_path, folder):
    results, experiment = run_on(monkeypatch, tmp_path, folder, (60, 60), lvis=False)
    assert detections_in(experiment) == 120
    assert results.metrics["bbox"]["AP"] == pytest.approx(100)
    assert results.metrics["segm"]["AP"] == pytest.approx(100)
    assert (results.settings["protocol"], results.settings["max_detections"]) == ("coco", 100)


def test_more_than_a_hundred_of_one_category_are_cut_to_a_hundred_on_coco(monkeypatch, tmp_path):
    results, experiment = run_on(monkeypatch, tmp_path, SOFT_NMS_ON_COCO[0], (110, 20), lvis=False)
    assert detections_in(experiment) == 120
    # recall of the first category ends at 100 / 110 = 0.909, which is 91 of 101 recall points
    assert results.metrics["bbox"]["AP"] == pytest.approx((100 * 91 / 101 + 100) / 2)


@pytest.mark.parametrize("folder", ON_LVIS)
def test_lvis_folders_keep_300_of_an_image(monkeypatch, tmp_path, folder):
    results, experiment = run_on(monkeypatch, tmp_path, folder, (200, 150), lvis=True)
    assert detections_in(experiment) == 300
    # 100 of the 150 objects of the second category are left: recall 0.667, 67 of 101 recall points
    assert results.metrics["bbox"]["AP"] == pytest.approx((100 + 100 * 67 / 101) / 2)
    assert (results.settings["protocol"], results.settings["max_detections"]) == ("lvis", 300)

"""Rules of every experiment folder: minimal configs, short plain net.py, models of the expected size and names."""

import ast
import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from parameter_counts import expected_parameters, expected_trained
from PIL import Image
from shared import shared

from cvpods_ext.config import changes, flatten
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.data import category_tables
from cvpods_ext.engine.optim import select_trainable
from cvpods_ext.report import published

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground"
FOLDERS = sorted(path.parent for path in PLAYGROUND.rglob("config.py"))


def each(folders: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("folder", folders, ids=lambda f: f"{f.parent.name}/{f.name}")


each_experiment = each(FOLDERS)

FORBIDDEN = (ast.If, ast.IfExp, ast.For, ast.While, ast.ClassDef, ast.Lambda, ast.comprehension, ast.Try, ast.Match)


def write_annotations(path: Path, category_ids: list[int], boxes_of: tuple[int, ...] = (1,)) -> None:
    """One picture with as many boxes of each category as `boxes_of` says by turns: what building a network may ask."""
    labels = [number for i, number in enumerate(category_ids) for _ in range(boxes_of[i % len(boxes_of)])]
    boxes = [[float(i % 60), float(i % 40), 4.0, 4.0] for i in range(len(labels))]
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": number, "bbox": box, "area": 16.0, "segmentation": [_square(box)]}
        for i, (number, box) in enumerate(zip(labels, boxes, strict=True))
    ]
    image = {"id": 1, "width": 64, "height": 48, "coco_url": "http://images/train2017/1.jpg", "file_name": "1.jpg"}
    content = {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in category_ids],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _square(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture(scope="module", autouse=True)
def data_root(tmp_path_factory):
    """A data root with the files that some networks read, so that no test depends on this machine's data."""
    root = tmp_path_factory.mktemp("datasets")
    write_annotations(root / "lvis" / "lvis_box_train.json", list(range(1, 41)), boxes_of=(1, 10, 50, 300))
    write_annotations(root / "lvis" / "lvis_v1_train.json", [c.id for c in category_tables.load("lvis_v1_train")])
    for label in range(20):
        image = root / "shapes" / "train" / f"class_{label:02}" / "1.jpg"
        image.parent.mkdir(parents=True)
        image.touch()  # classes are counted, not opened
    labels = root / "label_maps" / "train"
    for folder in (root / "coco" / "train2017", labels / "train2017"):
        folder.mkdir(parents=True)
    (labels / "classes.txt").write_text("\n".join(f"class {label}" for label in range(41)))
    (root / "coco" / "train2017" / "1.jpg").touch()
    Image.fromarray(np.arange(41, dtype=np.uint8).reshape(1, 41)).save(labels / "train2017" / "1.png")
    before = os.environ.get("PODS_DATASETS")
    os.environ["PODS_DATASETS"] = str(root)
    yield root
    os.environ.pop("PODS_DATASETS")
    if before is not None:
        os.environ["PODS_DATASETS"] = before


@dataclass(frozen=True)
class Built:
    """A model on the meta device: shapes of its state dict, sizes of its parameters, names of those that train."""

    state: dict[str, tuple[int, ...]]
    parameters: dict[str, int]
    trained: frozenset[str]


@functools.cache
def built(folder: Path) -> Built:
    experiment = experiment_of(folder)
    with torch.device("meta"):
        model = experiment.build_model()
    select_trainable(model, experiment.config.model.train_only)
    return Built(
        {name: tuple(value.shape) for name, value in model.state_dict().items()},
        {name: parameter.numel() for name, parameter in model.named_parameters()},
        frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad),
    )


@functools.cache
def experiment_of(folder: Path) -> Experiment:
    return load_experiment(folder)


def named(name: str) -> Path:
    return next(folder for folder in FOLDERS if folder.name == name)


def header_of(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "config.py").read_text(encoding="utf-8"))) or ""


def net_lines(path: Path) -> list[str]:
    """Lines of code without the file's docstring and blank lines."""
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    first = body[1 if isinstance(body[0], ast.Expr) else 0].lineno
    return [line for line in text.splitlines()[first - 1 :] if line.strip()]


@each_experiment
def test_config_is_a_minimal_diff(folder):
    config = experiment_of(folder).config
    repeated = set(config.written) - set(changes(config, config.base))
    assert not repeated, f"config.py repeats base values for {sorted(repeated)}"


@each_experiment
def test_config_header_says_how_to_run_it_and_what_to_expect(folder):
    header = header_of(folder)
    for word in ("Run:", "Cost:", "Paper:"):
        assert word in header, f"{folder.name}/config.py does not say {word}"
    assert "Published:" not in header or "Source:" in header or "nothing" in header


@each_experiment
def test_the_header_repeats_the_published_numbers_and_no_others(folder):
    """`bbox AP 20.4, APr 2.1; segm AP 20.7` in the header against the table that reports read."""
    written = {
        task: {
            metric: float(value) for metric, value in re.findall(r"\b(\w*(?:AP|IoU|Acc|top)\w*) ([\d.]+\d)", numbers)
        }
        for task, numbers in re.findall(
            r"\b(bbox|segm|sem_seg|classification) (\w+ \d[^\n;]*?)(?=[;\n]|, segm|$)", header_of(folder)
        )
    }
    test = experiment_of(folder).config.data.test
    record = published.find(folder.name, test) if isinstance(test, str) else None
    known = {task: dict(metrics) for task, metrics in record.metrics.items()} if record else {}
    for task, metrics in written.items():
        assert metrics == {name: known.get(task, {}).get(name) for name in metrics}
    assert set(written) == set(known)


@each_experiment
def test_net_is_short_and_plain(folder):
    path = folder / "net.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions == ["build_model"]
    assert not [node for node in ast.walk(tree) if isinstance(node, FORBIDDEN)]
    assert len(net_lines(path)) <= 40


def test_no_two_folders_are_the_same_experiment():
    seen = {}
    for folder in FOLDERS:
        settings = flatten(experiment_of(folder).config)
        body = ast.parse((folder / "net.py").read_text(encoding="utf-8")).body[1:]
        key = json.dumps(settings, sort_keys=True) + "".join(ast.dump(node) for node in body)
        assert key not in seen, f"{folder} and {seen[key]} resolve to the same experiment"
        seen[key] = folder


@each_experiment
def test_the_first_stage_of_a_second_stage_exists(folder):
    init = experiment_of(folder).config.model.init
    if init.startswith("experiment:"):
        assert (folder.parent / init.removeprefix("experiment:") / "config.py").is_file()


# From the reference engine: total parameters, rcnn.md section 23 of the reference data.
PARAMETERS = {
    "mask_rcnn.res50.fpn.lvis.multiscale.1x": 50_532_516,
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.1x": 50_531_286,
    "mask_rcnn.res50.fpn.lvis.multiscale.disalign.1x": 50_536_001,
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.disalign.1x": 50_534_771,
    "mask_rcnn.res50.fpn.lvisv1.multiscale.1x": 50_387_202,
}  # those of EVA-02 are in test_eva02_folders.py


@each_experiment
def test_the_model_builds_without_data_or_memory(folder):
    assert built(folder).trained


@each_experiment
def test_the_model_has_the_size_that_its_name_says(folder):
    model = built(folder)
    total = sum(model.parameters.values())
    assert total == PARAMETERS.get(folder.name, total) == expected_parameters(folder.name)
    assert sum(model.parameters[name] for name in model.trained) == expected_trained(folder.name)


METHODS = ("", "rfs.", "cos_norm.", "rfs.cos_norm.", "disalign.", "cos_norm.disalign.", "rfs.cos_norm.disalign.")
LISTED = [f"lvis.multiscale.{m}1x" for m in METHODS] + ["lvisv1.multiscale.1x", "lvisv1.multiscale.rfs.1x"]


@each([named(f"mask_rcnn.res50.fpn.{row}") for row in LISTED])
def test_state_dict_and_trained_parameters_are_the_published_ones(folder):
    listing = shared(f"golden/cvpods_keys/{folder.name}.txt")
    rows = [line.split("\t") for line in listing.read_text().splitlines()]
    model = built(folder)
    assert {key: str(shape) for key, shape in model.state.items()} == {key: shape for key, shape, *_ in rows}
    assert model.trained == {key for key, *_, mode in rows if mode == "train"}


def rows_of(detector: str) -> list[str]:
    """The ends of the names of a detector's folders that the ResNet-50 has as well, such as lvis.multiscale.1x."""
    names = {folder.name for folder in FOLDERS}
    rows = [name.removeprefix(f"{detector}.fpn.") for name in sorted(names) if name.startswith(f"{detector}.fpn.lvis")]
    return [row for row in rows if f"mask_rcnn.res50.fpn.{row}" in names]


DEEPER = [(backbone, row) for backbone in ("res101", "resx101_32x8d") for row in rows_of(f"mask_rcnn.{backbone}")]


def test_every_detector_of_the_published_tables_has_rows():
    assert len(rows_of("mask_rcnn.res101")) == 12
    assert len(rows_of("mask_rcnn.resx101_32x8d")) == 8
    assert len(rows_of("cascade_mask_rcnn.res50")) == 4


@pytest.mark.parametrize(("backbone", "row"), DEEPER)
def test_a_deeper_backbone_only_adds_blocks_to_the_published_names(backbone, row):
    res50 = built(named(f"mask_rcnn.res50.fpn.{row}")).state
    deeper = built(named(f"mask_rcnn.{backbone}.fpn.{row}")).state
    added = {name for name in deeper if re.match(r"backbone\.bottom_up\.res4\.([6-9]|1\d|2[0-2])\.", name)}
    assert set(deeper) - added == set(res50)
    assert len(added) == 17 * 15  # three convolutions of a weight and four tensors of a frozen norm each
    if backbone == "res101":
        assert {name: shape for name, shape in deeper.items() if name not in added} == res50


@pytest.mark.parametrize("row", rows_of("cascade_mask_rcnn.res50"))
def test_a_cascade_has_the_published_names_once_for_each_stage(row):
    one = built(named(f"mask_rcnn.res50.fpn.{row}")).state
    cascade = built(named(f"cascade_mask_rcnn.res50.fpn.{row}")).state
    stage = re.compile(r"(roi_heads\.box_(?:head|predictor)\.)(\d)\.")
    for k in "012":
        of_stage = {stage.sub(r"\1", n): s for n, s in cascade.items() if not (m := stage.match(n)) or m[2] == k}
        assert set(of_stage) == set(one)
        different = {name for name, shape in of_stage.items() if shape != one[name]}
        assert different == {f"roi_heads.box_predictor.bbox_pred.{part}" for part in ("weight", "bias")}


@pytest.mark.parametrize(("backbone", "row"), DEEPER)
def test_folders_of_two_backbones_differ_in_one_line_of_the_network(backbone, row):
    plain = net_lines(named(f"mask_rcnn.res50.fpn.{row}") / "net.py")
    other = net_lines(named(f"mask_rcnn.{backbone}.fpn.{row}") / "net.py")
    changed = [(a.strip(), b.strip()) for a, b in zip(plain, other, strict=True) if a != b]
    assert len(changed) == 1
    assert all(line.startswith("backbone=resnet_fpn(") for line in changed[0])


@each([folder for folder in FOLDERS if ".disalign" in folder.name and "rcnn" in folder.name])
def test_the_second_stage_of_disalign_trains_its_calibration_in_every_stage(folder):
    stages = ("0.", "1.", "2.") if folder.name.startswith("cascade") else ("",)
    calibration = ("logit_scale", "logit_bias", "confidence_layer.weight", "confidence_layer.bias")
    expected = {f"roi_heads.box_predictor.{stage}{name}" for stage in stages for name in calibration}
    assert built(folder).trained == expected


SMOKE = (
    "lvis1.0/mask_rcnn.res50.fpn.lvisv1.multiscale.seesaw.normed_mask.1x",
    "lvis1.0/mask_rcnn.res50.fpn.lvisv1.multiscale.fed_verified.1x",
    "lvis1.0/mask_rcnn.res50.fpn.lvisv1.multiscale.irfs.1x",
    "lvis1.0/cascade_mask_rcnn.res50.fpn.lvisv1.multiscale.cos_norm.1x",
    "lvis0.5/mask_rcnn.resx101_32x8d.fpn.lvis.multiscale.1x",
    "coco/faster_rcnn.res50.fpn.coco.multiscale.1x",
)


@pytest.mark.slow
@pytest.mark.parametrize("folder", SMOKE)
def test_a_smoke_run_of_every_kind_trains_with_finite_losses(folder, tmp_path, monkeypatch):
    from cvpods_ext.engine.train import train

    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    overrides = [f"output={tmp_path}", "schedule.iters=3", "model.init=none"]
    train(load_experiment(PLAYGROUND / folder, overrides, smoke=True), torch.device("cpu"))
    assert (tmp_path / "model_final.pth").is_file()


def twins() -> list[tuple[Path, Path]]:
    """Folders of one experiment on both versions of LVIS."""
    by_name = {(folder.parent.name, folder.name): folder for folder in FOLDERS}
    pairs = [
        (folder, by_name.get(("lvis1.0", folder.name.replace(".lvis.", ".lvisv1."))))
        for folder in FOLDERS
        if folder.parent.name == "lvis0.5"
    ]
    return [(old, new) for old, new in pairs if new is not None]


@pytest.mark.parametrize(("old", "new"), twins(), ids=lambda folder: folder.name)
def test_both_versions_of_lvis_train_the_same_network(old, new):
    """Each folder can be read by itself; what it shares with its twin must not drift apart."""
    assert (old / "net.py").read_text(encoding="utf-8") == (new / "net.py").read_text(encoding="utf-8")


def test_every_folder_of_the_older_lvis_has_a_twin():
    assert len(twins()) == len([folder for folder in FOLDERS if folder.parent.name == "lvis0.5"]) == 17

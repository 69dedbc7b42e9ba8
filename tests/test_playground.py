"""Rules that every experiment folder obeys: minimal configs, short plain net.py, models of the expected size."""

import ast
import json
from pathlib import Path

import pytest
import torch

from cvpods_ext.config import changes, flatten
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import select_trainable
from shared import shared

PLAYGROUND = Path(__file__).resolve().parents[1] / "playground"
FOLDERS = sorted(path.parent for path in PLAYGROUND.rglob("config.py"))
each_experiment = pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f"{f.parent.name}/{f.name}")

FORBIDDEN = (ast.If, ast.IfExp, ast.For, ast.While, ast.ClassDef, ast.Lambda, ast.comprehension, ast.Try, ast.Match)


def code_lines(path: Path) -> int:
    """Lines without the docstring and blank lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = tree.body[1:] if isinstance(tree.body[0], ast.Expr) else tree.body
    first = body[0].lineno
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines()[first - 1 :])


@each_experiment
def test_config_is_a_minimal_diff(folder):
    config = load_experiment(folder).config
    repeated = set(config.written) - set(changes(config, config.base))
    assert not repeated, f"config.py repeats base values for {sorted(repeated)}"


@each_experiment
def test_config_header_says_how_to_run_it_and_what_to_expect(folder):
    header = ast.get_docstring(ast.parse((folder / "config.py").read_text(encoding="utf-8"))) or ""
    for word in ("Run:", "Cost:", "Paper:"):
        assert word in header, f"{folder.name}/config.py does not say {word}"
    assert "Published:" not in header or "Source:" in header or "nothing" in header


@each_experiment
def test_net_is_short_and_plain(folder):
    path = folder / "net.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions == ["build_model"]
    assert not [node for node in ast.walk(tree) if isinstance(node, FORBIDDEN)]
    assert code_lines(path) <= 40


def test_no_two_folders_are_the_same_experiment():
    seen = {}
    for folder in FOLDERS:
        settings = flatten(load_experiment(folder).config)
        body = ast.parse((folder / "net.py").read_text(encoding="utf-8")).body[1:]
        key = json.dumps(settings, sort_keys=True) + "".join(ast.dump(node) for node in body)
        assert key not in seen, f"{folder} and {seen[key]} resolve to the same experiment"
        seen[key] = folder


@each_experiment
def test_the_first_stage_of_a_second_stage_exists(folder):
    init = load_experiment(folder).config.model.init
    if init.startswith("experiment:"):
        assert (folder.parent / init.removeprefix("experiment:") / "config.py").is_file()


# From the reference engine: total and trainable parameters, rcnn.md section 23 of the reference data.
PARAMETERS = {
    "mask_rcnn.res50.fpn.lvis.multiscale.1x": 50_532_516,
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.1x": 50_531_286,
    "mask_rcnn.res50.fpn.lvis.multiscale.disalign.1x": 50_536_001,
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.disalign.1x": 50_534_771,
    "mask_rcnn.res50.fpn.lvisv1.multiscale.1x": 50_387_202,
}


@each_experiment
def test_the_model_builds_without_data_or_memory(folder):
    with torch.device("meta"):
        model = load_experiment(folder).build_model()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == PARAMETERS.get(folder.name, total)


@each_experiment
def test_state_dict_and_trained_parameters_are_the_published_ones(folder):
    listing = shared("golden/cvpods_keys") / f"{folder.name}.txt"
    if not listing.is_file():
        pytest.skip("no published key list for this folder")
    rows = [line.split("\t") for line in listing.read_text().splitlines()]
    experiment = load_experiment(folder)
    with torch.device("meta"):
        model = experiment.build_model()
    select_trainable(model, experiment.config.model.train_only)
    shapes = {key: str(tuple(value.shape)) for key, value in model.state_dict().items()}
    assert shapes == {key: shape for key, shape, *_ in rows}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {key for key, *_, mode in rows if mode == "train"}

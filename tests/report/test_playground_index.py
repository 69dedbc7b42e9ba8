"""The generated index: differences from config and net, published beside measured numbers, stale files found out."""

import pytest

from cvpods_ext.cli import report as command
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report import playground

CONFIG = """
from cvpods_ext.config import MultiStep, override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE
config = override(BASE{changes})
"""
NET = """
def build_model(cfg):
    classes = num_classes(cfg.data, cfg.folder)
    counts = image_counts(cfg.data, cfg.folder)
    classifier = Linear(1024, classes)
{beside}    return mask_rcnn_fpn(cfg.model, num_classes=classes, backbone=resnet_fpn(50){parts})
"""
PLAIN = "mask_rcnn.res50.fpn.lvisv1.multiscale.1x"
OTHER = "mask_rcnn.res50.fpn.lvisv1.multiscale.other.1x"


def write(root, name, changes="", parts="", beside=""):
    folder = root / "lvis1.0" / name
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(CONFIG.format(changes=changes))
    (folder / "net.py").write_text(NET.format(parts=parts, beside=beside))
    return folder


@pytest.fixture
def root(tmp_path):
    write(tmp_path, PLAIN)
    write(
        tmp_path,
        OTHER,
        changes=', data=dict(sampler="repeat_factor"), schedule=dict(decay=MultiStep(drops=(7 / 9, 25 / 27)))',
        parts=", classifier=classifier, classification_loss=Loss(counts)",
        beside="    nn.init.constant_(classifier.bias, -2.0)\n",
    )
    return tmp_path


def row_of(text, name):
    return next(line for line in text.splitlines() if line.startswith(f"| [{name}]")).split(" | ")


def test_a_row_says_what_the_network_and_the_config_change(root):
    what = row_of(playground.render(root), OTHER)[1]
    assert what == (
        "classifier: Linear(1024, num_classes); classification_loss: Loss(image_counts); "
        "and: nn.init.constant_(classifier.bias, -2.0); data.sampler=repeat_factor; "
        "schedule.decay=MultiStep(drops=(7/9, 25/27))"
    )


def test_the_plain_experiment_comes_first_and_names_its_backbone(root):
    rows = [line for line in playground.render(root).splitlines() if line.startswith("| [mask")]
    assert rows[0].startswith(f"| [{PLAIN}](lvis1.0/{PLAIN}) | plain: resnet_fpn(50) |")


def test_published_numbers_have_their_source_and_nothing_is_invented(root):
    text = playground.render(root)
    assert row_of(text, PLAIN)[2:] == ["-", "18.8 (0.9 / 15.1 / 30.6)", "-", "18.3 (1.0 / 15.6 / 28.9)", "1 |"]
    assert row_of(text, OTHER)[2:] == ["-", "-", "-", "-", "- |"]
    assert "1. DisAlign, README.md of the experiment folder (https://github.com" in text


def test_measured_numbers_come_from_results_json(root):
    metrics = {"bbox": {"AP": 12.34, "APr": None, "APc": 5.0, "APf": 6.0}}
    Results(experiment=OTHER, dataset="lvis_v1_val", metrics=metrics).write(root / "lvis1.0" / OTHER / "results.json")
    assert row_of(playground.render(root), OTHER)[2] == "12.3 (n/a / 5.0 / 6.0)"


def test_a_second_stage_names_its_first_and_what_it_trains(root):
    write(
        root,
        "mask_rcnn.res50.fpn.lvisv1.multiscale.second.1x",
        changes=f', model=dict(init="experiment:{PLAIN}", train_only=(r"roi_heads\\.box_predictor\\.(\\d\\.)?a\\.b",))',
    )
    what = row_of(playground.render(root), "mask_rcnn.res50.fpn.lvisv1.multiscale.second.1x")[1]
    assert what == f"starts from {PLAIN}; trains only a.b"


def test_a_stale_index_is_found_and_mended(root, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pods_report", str(root)])
    command.main()
    monkeypatch.setattr("sys.argv", ["pods_report", "--check", str(root)])
    command.main()
    assert "all up to date" in capsys.readouterr().out
    readme = root / "README.md"
    readme.write_text(readme.read_text().replace("18.8", "28.8"))
    with pytest.raises(SystemExit):
        command.main()
    out = capsys.readouterr().out
    assert "-| [" in out
    assert "28.8" in out


def test_a_readme_of_a_person_is_left_alone(root):
    (root / "README.md").write_text("# Mine\n")
    assert not playground.is_playground(root)
    (root / "README.md").unlink()
    assert playground.is_playground(root)
    assert not playground.is_playground(root / "lvis1.0")


def test_a_net_that_does_not_end_in_an_assembly_is_refused(tmp_path):
    (tmp_path / "net.py").write_text("def build_model(cfg):\n    return 1\n")
    with pytest.raises(ConfigError, match="must end in `return <assembly>"):
        playground.assembly(tmp_path / "net.py")

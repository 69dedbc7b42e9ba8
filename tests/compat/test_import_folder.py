"""Old folders moved to our form: equal losses, or a reason and nothing written."""

import sys

import old_folders
import old_image_folders
import pytest
import torch

from cvpods_ext.cli import import_folder as pods_import
from cvpods_ext.compat.import_folder import import_folder
from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.optim import select_trainable
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.tasks.task import find

FOLDERS = {
    "plain": lambda root: old_folders.plain(root / "old"),
    "rfs": lambda root: old_folders.repeated(root / "old"),
    "cosine": lambda root: old_folders.cosine(root / "old"),
    "disalign": lambda root: old_folders.aligned(root / "old", "first"),
    "cosine.disalign": lambda root: old_folders.aligned(root / "old", "first", "Cosine", "fast_rcnn"),
    "images": lambda root: old_image_folders.plain(root / "old"),
    "images.disalign": lambda root: old_image_folders.aligned(root / "old", "first"),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    data = old_folders.data_root(tmp_path / "datasets", images=4)
    old_image_folders.data_root(data)
    monkeypatch.setenv("PODS_DATASETS", str(data))
    return tmp_path


@pytest.mark.parametrize("kind", FOLDERS)
def test_both_folders_have_one_recipe_and_equal_losses_on_a_real_batch(kind, root):
    """On the loader's batch, which is another than the one that the import compares on."""
    old = FOLDERS[kind](root)
    imported = import_folder(old, root / "moved" / "new")
    assert sorted(path.name for path in (root / "moved" / "new").iterdir()) == ["config.py", "net.py"]
    assert [path.name for path in (root / "moved").iterdir()] == ["new"]
    theirs, ours = load_experiment(old), load_experiment(root / "moved" / "new")
    apart = ("cvpods", "model.train_only", "model.frozen_statistics_move")
    recipe = {key: value for key, value in flatten(theirs.config).items() if key not in apart}
    assert {key: value for key, value in flatten(ours.config).items() if key not in apart} == recipe
    torch.manual_seed(3)
    task, there = find(theirs.config.task), theirs.build_model().train()
    here = ours.build_model().train()
    report = load_into(here, there.state_dict(), "old")
    assert not report.missing
    assert not report.skipped
    select_trainable(here, ours.config.model.train_only)
    trained = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (there, here)]
    assert trained[0] == trained[1]
    for norm in (one for one in here.modules() if hasattr(one, "moves_when_frozen")):
        norm.moves_when_frozen = True
    batch = next(task.training_batches(load_experiment(old, smoke=True), there))
    found = []
    for model in (there, here):
        torch.manual_seed(1)
        found.append({name: float(value.detach()) for name, value in model(batch).items()})
    assert found[0].keys() == found[1].keys() >= imported.losses.keys()
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_no_data_are_needed_for_a_detector(tmp_path, monkeypatch):
    monkeypatch.delenv("PODS_DATASETS", raising=False)
    import_folder(old_folders.aligned(tmp_path / "old", "first"), tmp_path / "new")
    text = (tmp_path / "new" / "net.py").read_text()
    assert "GroupReweightedCrossEntropy(class_counts(cfg.data, cfg.folder), exponent=0.8)" in text


def test_weights_of_a_relative_path_are_found_from_the_new_folder(root):
    log = root / "first" / "log"
    log.mkdir(parents=True)
    torch.save({"model": {}}, log / "plain_model_final.pth")
    old = old_folders.aligned(root / "old", "first")
    import_folder(old, root / "deep" / "er" / "new")
    init = load_experiment(root / "deep" / "er" / "new").config.model.init
    assert (root / "deep" / "er" / "new" / init).resolve() == log / "plain_model_final.pth"


LOSS_OF_ITS_OWN = "return F.cross_entropy(self.pred_class_logits, self.gt_classes, weight=self.weight.sqrt())\n"


def change(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_loss_of_the_folders_own_is_told_with_both_values_and_nothing_is_written(root):
    old = old_folders.aligned(root / "old", "first")
    path = old / "roi_heads" / "fast_rcnn.py"
    line = next(line for line in path.read_text().splitlines() if "F.cross_entropy" in line)
    change(path, line.strip(), LOSS_OF_ITS_OWN.strip())
    with pytest.raises(ConfigError, match=r"(?s)code of the folder's own.*there: loss_cls .*ours:  loss_cls"):
        import_folder(old, root / "new")
    assert not (root / "new").exists()
    assert not list(root.glob(".new*"))


def test_parts_of_the_folders_own_are_named(root):
    old = old_folders.plain(root / "old")
    change(old / "net.py", "return FastRCNNConvFCHead(cfg", "return Own(cfg")
    with open(old / "net.py", "a") as file:
        file.write("\nclass Own(FastRCNNConvFCHead):\n    pass\n")
    with pytest.raises(ConfigError, match="its box head, a Own, is a class of the folder's own"):
        import_folder(old, root / "new")


def test_settings_that_our_builders_fix_are_named(root):
    old = old_folders.plain(root / "old", after="config.MODEL.RPN.LOSS_WEIGHT = 2.0")
    with pytest.raises(ConfigError, match=r"MODEL.RPN.LOSS_WEIGHT is 2.0: our builders add losses up"):
        import_folder(old, root / "new")


def test_a_step_that_fails_names_the_line(root):
    old = old_folders.aligned(root / "old", "first")
    change(old / "roi_heads" / "fast_rcnn.py", "self._log_accuracy()", "self.no_such_thing()")
    with pytest.raises(ConfigError, match=r"fast_rcnn.py:\d+: a step of this folder fails: AttributeError"):
        import_folder(old, root / "new")


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["pods_import", *map(str, arguments)])
    pods_import.main()


def test_the_command_says_what_it_compared_and_what_comes_next(root, monkeypatch, capsys):
    run(monkeypatch, old_folders.plain(root / "old"), root / "new")
    said = capsys.readouterr().out
    assert "equal losses on one batch with equal weights (loss_cls" in said
    assert "pods_train --smoke" in said


@pytest.mark.parametrize("new", ["old", "old/net.py"])
def test_a_place_that_is_taken_is_refused(root, monkeypatch, capsys, new):
    old = old_folders.plain(root / "old")
    with pytest.raises(SystemExit):
        run(monkeypatch, old, root / new)
    assert "is there already" in capsys.readouterr().err


def test_a_folder_that_is_not_of_cvpods_is_refused(root, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, root, root / "new")
    assert "is no folder of cvpods" in capsys.readouterr().err

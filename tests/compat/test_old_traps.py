"""What a translation could get wrong without a word: files, schedules, methods, norms, test sizes."""

import logging

import old_folders
import old_image_folders
import pytest
import torch

from cvpods_ext.compat.import_folder import import_folder
from cvpods_ext.config.experiment import imports_cvpods, load_experiment
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.errors import ConfigError, WeightsError
from cvpods_ext.tasks.detection import TASK


@pytest.fixture
def root(tmp_path, monkeypatch):
    data = old_folders.data_root(tmp_path / "datasets", images=2)
    old_image_folders.data_root(data)
    monkeypatch.setenv("PODS_DATASETS", str(data))
    return tmp_path


def change(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


STRIP = """
import torch
found = torch.load("../first/log/model_final.pth")
{change}
torch.save(found, "../first/log/weights_only.pth")
"""


def test_no_file_is_written_while_a_config_is_imported(root):
    log = root / "first" / "log"
    log.mkdir(parents=True)
    for name in ("model_final.pth", "weights_only.pth"):
        torch.save({"model": {"w": torch.ones(3)}, "optimizer": {}}, log / name)
    before = (log / "weights_only.pth").read_bytes()
    after = STRIP.format(change="found.pop('optimizer', None)")
    load_experiment(old_folders.plain(root / "old", imports="import torch\n", after=after))
    assert (log / "weights_only.pth").read_bytes() == before


@pytest.mark.parametrize(
    "changing",
    ["found['model'] = {k: v for k, v in found['model'].items() if 'cls' not in k}", "found['model'].pop('x', None)"],
)
def test_a_first_stage_that_is_changed_at_import_is_told(root, changing):
    after = STRIP.format(change=changing)
    folder = old_folders.plain(root / "old", imports="import torch\n", after=after, weights="../first/log/new.pth")
    with pytest.raises(ConfigError, match=r"changes the weights of a first stage .*init_skip"):
        load_experiment(folder)
    load_experiment(folder, ["MODEL.WEIGHTS", "none"])
    (root / "first" / "log").mkdir(parents=True)
    (root / "first" / "log" / "new.pth").write_bytes(b"x")
    load_experiment(folder)


def test_epochs_end_in_an_incomplete_batch_and_warm_up_counts_them(root):
    after = "config.SOLVER.LR_SCHEDULER.WARMUP_ITERS = 2\nconfig.SOLVER.IMS_PER_BATCH = 5"
    schedule = load_experiment(old_image_folders.plain(root / "old", after=after), ["SOLVER.IMS_PER_DEVICE", "5"])
    assert schedule.config.schedule.iters == 6 * 3  # 12 images in batches of 5
    assert schedule.config.schedule.warmup_iters == 2 * 3


OVERRIDES = {
    "heads": ("StandardROIHeads", "_forward_mask"),
    "rpn": ("RPN", "losses"),
    "model": ("GeneralizedRCNN", "inference"),
    "mask": ("MaskRCNNConvUpsampleHead", "layers"),
}


@pytest.mark.parametrize("what", OVERRIDES)
def test_a_method_that_is_never_called_here_is_refused_with_its_line(root, what):
    base, method = OVERRIDES[what]
    folder = old_folders.plain(root / "old")
    own = f"\n\nclass Own({base}):\n    def {method}(self, *args):\n        raise SystemExit\n"
    (folder / "net.py").write_text((folder / "net.py").read_text().replace(f"{base}(cfg", "Own(cfg") + own)
    with pytest.raises(ConfigError, match=rf"net\.py:\d+: Own\.{method} would never be called"):
        load_experiment(folder).build_model()


def test_norms_of_freeze_at_stay_and_others_move_in_detectors_too(root):
    words = ["MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "2", "MODEL.WEIGHTS", "none"]
    folder = old_folders.plain(root / "old")
    for extra, moves in ([], True), (["model.frozen_statistics_move=False"], False):
        experiment = load_experiment(folder, [*words, *extra], smoke=True)
        model = experiment.build_model().train()
        model.backbone.requires_grad_(False)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        model(next(TASK.training_batches(experiment, model)))
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert ("backbone.bottom_up.res3.0.conv1.norm.running_mean" in moved) == moves
        assert "backbone.bottom_up.stem.conv1.norm.running_mean" not in moved
        assert "backbone.bottom_up.res2.0.conv1.norm.running_mean" not in moved


@pytest.mark.parametrize(
    ("milestones", "done", "expected"),
    [([120_000, 160_000], 40_000, 40_000), ([960_000, 1_280_000], 400_000, 50_000), ([], 7, 7)],
)
def test_a_run_on_another_number_of_gpus_is_resumed_where_it_was(root, caplog, milestones, done, expected):
    experiment = load_experiment(old_folders.plain(root / "old"))
    log = experiment.folder / "log"
    log.mkdir()
    saved = {
        "model": experiment.build_model().state_dict(),
        "iteration": done - 1,
        "scheduler": {"milestones": milestones},
    }
    torch.save(saved, log / "model_final.pth")
    (log / "last_checkpoint").write_text("model_final.pth")
    with caplog.at_level(logging.WARNING):
        experiment.take_over_earlier_run()
    state = CheckpointFolder(experiment.output).latest()
    assert state is not None
    assert state["iteration"] == expected
    assert ("on another number of GPUs" in caplog.text) == (expected != done)


def test_a_run_of_another_schedule_is_not_resumed(root):
    experiment = load_experiment(old_folders.plain(root / "old"))
    (experiment.folder / "log").mkdir()
    state = {
        "model": experiment.build_model().state_dict(),
        "iteration": 9,
        "scheduler": {"milestones": [60_000, 160_000]},
    }
    torch.save(state, experiment.folder / "log" / "model_final.pth")
    (experiment.folder / "log" / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(WeightsError, match="a run of neither"):
        experiment.take_over_earlier_run()


def test_whatever_has_a_gradient_is_added_up(root):
    folder = old_folders.aligned(root / "old", "first")
    change(folder / "roi_heads" / "roi_heads.py", "            return outputs.losses()\n",
           "            found = outputs.losses()\n            found['penalty'] = self.box_predictor.logit_scale.sum()\n"
           "            return found\n")  # fmt: skip
    experiment = load_experiment(folder, smoke=True)
    model = experiment.build_model().train()
    assert "loss_penalty" in model(next(TASK.training_batches(experiment, model)))


REFUSED = {
    "betas": ('config.SOLVER.OPTIMIZER.BETAS = (0.5, 0.9)', r"BETAS is \(0.5, 0.9\): only \(0.9, 0.999\)"),
    "an unknown key": ("config.SOLVER.OPTIMIZER.FANCY = 3", "FANCY is 3: nothing here reads it"),
    "test sizes": (
        'config.INPUT.AUG.TEST_PIPELINES = [("ResizeShortestEdge", dict(short_edge_length=(600, 1000), max_size=9))]',
        r"TEST_PIPELINES draws from \(600, 1000\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_translated_wrongly_is_refused(root, what):
    after, message = REFUSED[what]
    with pytest.raises(ConfigError, match=message):
        load_experiment(old_folders.plain(root / "old", after=after))


def test_both_sides_of_a_test_image_are_squashed_or_refused(root):
    pipeline = '[("R", transforms.Resize(({0}, {0}))), ("C", transforms.CenterCrop(64))]'
    after = "config.INPUT.AUG.TEST_PIPELINES = "
    data = load_experiment(old_image_folders.plain(root / "a", after=after + pipeline.format(64))).config.data
    assert (data.test_resize, data.crop_ratio) == ("squash", 1.0)
    with pytest.raises(ConfigError, match=r"resizes to .*73.*: give the short edge alone"):
        load_experiment(old_image_folders.plain(root / "b", after=after + pipeline.format(73)))


def test_pipelines_without_arguments_and_without_a_limit_are_read(root):
    after = 'config.INPUT.AUG.TRAIN_PIPELINES = [("ResizeShortestEdge", dict(short_edge_length=800)), ("RandomFlip",)]'
    data = load_experiment(old_folders.plain(root / "old", after=after)).config.data
    assert data.train_max_size > 10**6
    assert data.flip_probability == 0.5


def test_a_base_that_asks_for_arguments_and_class_attributes_are_read(root):
    folder = old_folders.plain(root / "old")
    base = (
        "class Base(RCNNFPNConfig):\n    GRW = 0.8\n\n    def __init__(self, depth):\n        super().__init__()\n\n\n"
    )
    change(folder / "config.py", "class MaskRCNNConfig(RCNNFPNConfig):", f"{base}class MaskRCNNConfig(Base):")
    change(folder / "config.py", "super().__init__()\n        self._reg", "super().__init__(50)\n        self._reg")
    experiment = load_experiment(folder)
    assert experiment.old["GRW"] == experiment.old.GRW == 0.8
    assert experiment.notes()


def test_a_folder_that_reaches_cvpods_through_a_module_beside_config_is_one(root):
    folder = old_folders.plain(root / "old")
    (folder / "config.py").rename(folder / "shared_base.py")
    (folder / "config.py").write_text("from shared_base import config\n")
    assert imports_cvpods(folder)
    assert load_experiment(folder).config.schedule.iters == 180_000


def test_a_key_does_not_swallow_a_setting_of_ours(root):
    with pytest.raises(ConfigError, match=r"the override MODEL\.WEIGHTS has no value"):
        load_experiment(old_folders.plain(root / "old"), ["MODEL.WEIGHTS", "seed=1"])


def test_a_numbered_checkpoint_that_is_absent_is_not_replaced_by_another(root):
    folder = old_folders.plain(root / "old", weights="../first/log/model_iter_0060000.pth")
    assert load_experiment(folder).config.model.init == "../first/log/model_iter_0060000.pth"


def test_an_import_compares_gradients(root):
    folder = old_folders.plain(root / "old")
    text = (folder / "net.py").read_text().replace("heads = StandardROIHeads(cfg", "heads = Own(cfg")
    own = """

class Own(StandardROIHeads):
    def _forward_box(self, features, proposals):
        return super()._forward_box([one.detach() for one in features], proposals)
"""
    (folder / "net.py").write_text(text + own)
    with pytest.raises(ConfigError, match=r"the losses are equal, but not the gradient of backbone"):
        import_folder(folder, root / "new")
    assert not (root / "new").exists()


def test_an_import_compares_what_is_found(root):
    folder = old_folders.plain(root / "old")
    change(folder / "net.py", "    return model\n", "    model.roi_heads.test_score_thresh = 0.5\n    return model\n")
    with pytest.raises(ConfigError, match=r"not what the networks find: .*nothing there"):
        import_folder(folder, root / "new")


def test_settings_that_net_changes_are_told(root, caplog):
    folder = old_folders.plain(root / "old")
    change(
        folder / "net.py", "def build_model(cfg):\n", "def build_model(cfg):\n    cfg.SOLVER.OPTIMIZER.BASE_LR = 0.5\n"
    )
    load_experiment(folder).build_model()
    assert "net.py changes SOLVER.OPTIMIZER.BASE_LR, which was read before and has no effect" in caplog.text
    with pytest.raises(ConfigError, match=r"net\.py changes settings: SOLVER\.OPTIMIZER\.BASE_LR"):
        import_folder(folder, root / "new")


def test_other_initial_values_are_told(root):
    folder = old_folders.plain(root / "old")
    change(
        folder / "net.py",
        "    return model\n",
        "    model.roi_heads.box_predictor.cls_score.bias.data.fill_(-4.6)\n    return model\n",
    )
    notes = import_folder(folder, root / "new").notes
    assert any("starts otherwise" in note and "cls_score.bias is -4.6 there, is 0 here" in note for note in notes)


def test_blocks_that_start_as_the_identity_do_so_in_the_new_folder(root):
    imported = import_folder(old_image_folders.plain(root / "old"), root / "new")
    assert not any("starts otherwise" in note and "norm" in note for note in imported.notes)
    model = load_experiment(root / "new").build_model()
    assert model.backbone.bottom_up.res2[0].conv2.norm.weight.abs().max() == 0


def test_a_config_in_the_encoding_that_it_names_is_read(root):
    folder = old_folders.plain(root / "old")
    text = "# -*- coding: gbk -*-\n# 长尾\n" + (folder / "config.py").read_text()
    (folder / "config.py").write_bytes(text.encode("gbk"))
    experiment = load_experiment(folder)
    assert experiment.config.schedule.iters == 180_000
    assert experiment.notes()

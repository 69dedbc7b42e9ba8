import shutil

import pytest

from cvpods_ext.config.experiment import load_experiment, sources_sha256
from cvpods_ext.errors import ConfigError

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from .helper import RATE
config = override(DetectionConfig(), schedule=dict(lr=RATE))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PODS_OUTPUT", raising=False)
    folder = tmp_path / "mask_rcnn.with.dots.1x"
    folder.mkdir()
    (folder / "helper.py").write_text("RATE = 0.5\n")
    (folder / "config.py").write_text(CONFIG)
    (folder / "net.py").write_text("def build_model(cfg):\n    return cfg.schedule.lr\n")
    return folder


def test_a_folder_is_loaded_from_anywhere_with_its_helper(folder):
    experiment = load_experiment(folder)
    assert experiment.name == "mask_rcnn.with.dots.1x"
    assert experiment.build_model() == 0.5
    assert experiment.output == folder / "outputs"
    assert experiment.is_as_published


def test_overrides_and_smoke_are_not_the_published_run(folder):
    assert load_experiment(folder, ["schedule.lr=1"]).build_model() == 1.0
    assert not load_experiment(folder, ["schedule.lr=1"]).is_as_published
    smoke = load_experiment(folder, smoke=True)
    assert smoke.config.schedule.iters == 10
    assert smoke.output == folder / "outputs" / "smoke"
    assert not smoke.is_as_published


def test_the_output_folder_can_be_moved(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_OUTPUT", str(tmp_path / "runs"))
    assert load_experiment(folder).output == tmp_path / "runs" / folder.name
    assert load_experiment(folder, ["output=there"]).output == folder / "there"


def test_two_folders_do_not_share_modules(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.py").write_text(
        "from cvpods_ext.config.detection import DetectionConfig\nconfig = DetectionConfig()\n"
    )
    (other / "net.py").write_text("def build_model(cfg):\n    return 'other'\n")
    assert load_experiment(folder).build_model() == 0.5
    assert load_experiment(other).build_model() == "other"


def test_a_place_that_is_no_experiment_is_told_so(tmp_path):
    with pytest.raises(ConfigError, match=r"is not an experiment: config\.py is missing\. Run inside a folder"):
        load_experiment(tmp_path)


def test_a_bad_key_names_the_file(folder):
    (folder / "config.py").write_text(CONFIG.replace("lr=", "learning_rate="))
    with pytest.raises(ConfigError, match=r"config\.py: unknown config key 'schedule.learning_rate'"):
        load_experiment(folder)


def test_the_digest_of_the_sources_changes_with_every_python_file_and_with_nothing_else(folder):
    before = sources_sha256(folder)
    load_experiment(folder).build_model()  # leaves compiled files
    (folder / "README.md").write_text("words")
    for aside in ("outputs", ".hidden"):
        (folder / aside).mkdir()
        (folder / aside / "net.py").write_text("copy = 1\n")
    assert sources_sha256(folder) == before
    seen = {before}
    for name in ("config.py", "net.py", "helper.py"):
        with open(folder / name, "a") as file:
            file.write("# another\n")
        seen.add(sources_sha256(folder))
    (folder / "more").mkdir()
    (folder / "more" / "part.py").touch()
    seen.add(sources_sha256(folder))
    (folder / "more" / "part.py").rename(folder / "more" / "other.py")
    seen.add(sources_sha256(folder))
    assert len(seen) == 6


def test_the_digest_of_the_sources_is_the_same_in_another_place(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert sources_sha256(tmp_path / "copy") == sources_sha256(folder)

"""A config as text gives the same config when it is read."""

from pathlib import Path

import pytest

from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.source import config_source

PLAYGROUND = Path(__file__).resolve().parents[2] / "playground"
FOLDERS = sorted(path.parent for path in PLAYGROUND.glob("*/*/config.py"))


@pytest.mark.parametrize("folder", FOLDERS[::7], ids=lambda path: path.name)
def test_every_experiment_can_be_written_and_read_again(folder, tmp_path):
    config = load_experiment(folder).config
    (tmp_path / "config.py").write_text(config_source("Again.", config))
    (tmp_path / "net.py").write_text("")
    assert flatten(load_experiment(tmp_path).config) == flatten(config)
    assert len((tmp_path / "config.py").read_text().splitlines()) < 60

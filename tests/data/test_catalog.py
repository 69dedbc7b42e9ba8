import json
import subprocess
import sys

import pytest
from shared import shared

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, category_tables
from cvpods_ext.errors import ConfigError, DataError


def test_every_known_data_set_resolves_below_the_root(monkeypatch):
    root = shared("data/datasets")
    monkeypatch.setenv("PODS_DATASETS", str(root))
    for name, entry in catalog.KNOWN.items():
        paths = catalog.resolve(name, "/nowhere")
        if name.startswith("objects365"):  # handed out to registered users only
            assert paths.annotations == root / entry.annotations
            continue
        assert paths.annotations.is_file()
        assert paths.images.is_dir()
        assert paths.name == name
        assert (
            len(category_tables.load(entry.table))
            == entry.num_classes
            == catalog.num_classes(DetectionData(train=name), ".")
        )


@pytest.mark.parametrize("name", ["lvis_v1_train", "lvis_v0.5_train", "coco_2017_train"])
def test_shipped_categories_are_those_of_the_json(name, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    content = json.loads(catalog.resolve(name, ".").annotations.read_text())
    expected = sorted((entry["id"], entry["name"], entry.get("frequency", "")) for entry in content["categories"])
    assert [(c.id, c.name, c.frequency) for c in catalog.categories(name, ".")] == expected


def test_the_nearest_datasets_folder_upward_is_the_root(tmp_path, monkeypatch):
    monkeypatch.delenv("PODS_DATASETS", raising=False)
    experiment = tmp_path / "a" / "b"
    experiment.mkdir(parents=True)
    (tmp_path / "datasets").mkdir()
    assert catalog.data_root(experiment) == tmp_path / "datasets"
    (tmp_path / "a" / "datasets").mkdir()
    assert catalog.data_root(experiment) == tmp_path / "a" / "datasets"


def test_no_root_and_a_wrong_root_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("PODS_DATASETS", raising=False)
    with pytest.raises(DataError, match=r"no folder called datasets in .* set PODS_DATASETS"):
        catalog.data_root(tmp_path)
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"PODS_DATASETS=.*nothing is not a folder"):
        catalog.data_root(tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown data set 'lvis_v1_trian': did you mean 'lvis_v1_train'"):
        catalog.resolve("lvis_v1_trian", ".")


def test_own_files_start_at_the_root_unless_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))
    relative = catalog.resolve(DatasetFiles(annotations="mine/x.json", images="mine/photos"), ".")
    assert relative.annotations == tmp_path / "mine" / "x.json"
    assert relative.images == tmp_path / "mine" / "photos"
    monkeypatch.delenv("PODS_DATASETS")
    absolute = catalog.resolve(DatasetFiles(annotations="/a/x.json", images="/b"), tmp_path)
    assert (str(absolute.annotations), str(absolute.images), absolute.name) == ("/a/x.json", "/b", "x")


def test_the_catalog_and_the_command_do_without_torch():
    code = (
        "import sys; import cvpods_ext.data.catalog, cvpods_ext.cli.data, cvpods_ext.data.doctor; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

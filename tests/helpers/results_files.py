"""Writes results.json files for the tests of tables."""

from pathlib import Path

from cvpods_ext.evaluation.results import Results

EMPTY_CONFIG = "from cvpods_ext.config import override\nfrom cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE\n\n"
NET = "def build_model(cfg):\n    raise AssertionError('a table needs no model')\n"


def write_results(
    folder: Path, experiment: str, segm: dict, *, dataset="lvis_v1_val", seed=0, changes=None, **settings
):
    """One results.json in `folder`; returns its path."""
    provenance = {"seed": seed, "weights_sha256": f"{experiment}-{seed}", "data_sha256": "d" * 64}
    provenance |= {
        key: settings.pop(key) for key in list(settings) if key in ("weights_sha256", "data_sha256", "smoke")
    }
    results = Results(
        experiment=experiment,
        dataset=dataset,
        metrics={"segm": segm},
        settings={"max_detections": 300, "images": 100, **settings},
        changes=changes or {},
        provenance=provenance,
    )
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "results.json")
    return folder / "results.json"


def write_experiment(folder: Path, config: str = "config = override(BASE)\n") -> Path:
    """An experiment folder that has not been trained."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.py").write_text(EMPTY_CONFIG + config)
    (folder / "net.py").write_text(NET)
    return folder

"""A playground with two measured experiments of known quality, shared by the tests of what reads detections."""

import pytest
from results_files import EMPTY_CONFIG, NET
from simulated import Skill, simulate

from cvpods_ext.data.synthetic.write import generate
from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.evaluation.results import Results
from cvpods_ext.runtime.files import sha256_of

CONFIG = EMPTY_CONFIG.replace("MASK_RCNN_LVIS1", "MINI") + "config = override(BASE)\n"


@pytest.fixture(scope="session")
def playground(tmp_path_factory):
    """Two measured experiments of known quality on a small synthetic set."""
    root = tmp_path_factory.mktemp("playground")
    files = generate(root / "datasets", images_train=80, images_val=50, num_classes=12)
    for seed, (name, skill) in enumerate(
        {
            "good": Skill(found=(0.9, 0.9, 0.9), named=(0.95, 0.9, 0.9), jitter=1.0),
            "poor": Skill(found=(0.5, 0.5, 0.6), named=(0.1, 0.3, 0.6), jitter=2.0),
        }.items()
    ):
        folder = root / name
        shards = simulate(files, folder / "outputs" / "inference" / "lvis_box_val", skill, seed)
        evaluation = evaluate(files.val, shards, workers=0)
        (folder / "config.py").write_text(CONFIG)
        (folder / "net.py").write_text(NET)
        Results(
            experiment=name,
            dataset="lvis_box_val",
            metrics=dict(evaluation),
            settings=evaluation.settings,
            provenance={"seed": 0, "weights_sha256": name, "data_sha256": sha256_of(files.val)},
        ).write(folder / "results.json")
    return root

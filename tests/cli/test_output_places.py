"""Every command refuses a place that it cannot write to before it does any work."""

import importlib
import json
import logging
import os
import re
import sys

import pytest
from tiny_experiment import make_data, make_experiment

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.checkpoint import CheckpointFolder


def run(monkeypatch, capsys, command, *arguments):
    """Exit status and stderr of a command, without the handlers of commands before, whose stderr is closed."""
    monkeypatch.setattr(logging.getLogger("cvpods_ext"), "handlers", [])
    monkeypatch.setattr(sys, "argv", [f"pods_{command}", *map(str, arguments)])
    try:
        importlib.import_module(f"cvpods_ext.cli.{command}").main()
        status = 0
    except SystemExit as done:
        status = done.code
    return status, capsys.readouterr().err


def nothing_may_start(monkeypatch, *functions):
    def started(*arguments, **options):
        raise AssertionError("the work began")

    for function in functions:
        monkeypatch.setattr(function, started)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data and an experiment with weights to test."""
    root = tmp_path_factory.mktemp("places")
    folder = make_experiment(root / "experiment", make_data(root))
    experiment = load_experiment(folder)
    CheckpointFolder(experiment.output).save_final({"model": experiment.build_model().state_dict(), "iteration": 0})
    (root / "file").write_text("x")
    return root


WORK = {
    "test": ["cvpods_ext.engine.distributed.launch.launch", "cvpods_ext.engine.evaluate.evaluate_imported"],
    "data": [
        "cvpods_ext.data.synthetic.write.generate",
        "cvpods_ext.data.annotations.annotations.load",
        "cvpods_ext.data.label_maps_of_masks.write_label_maps",
    ],
    "weights": ["cvpods_ext.modeling.weights.reader.read", "torch.hub.download_url_to_file"],
    "compare": ["cvpods_ext.report.runs.collect"],
    "demo": ["cvpods_ext.cli.mini_runs.mini_folder"],
    "zoo": ["cvpods_ext.cli.mini_runs.mini_folder"],
}
REFUSED = [
    ("compare", ["--out", "{root}/t.xlsx"], "--out .*xlsx must end in .md or .csv or .tex"),
    ("compare", ["--out", "{root}/file/t.md"], "--out .*file is a file, not a folder"),
    ("compare", ["--html", "{root}"], "--html .* must end in .html or .htm"),
    ("compare", ["--html", "{root}/file/p.html"], "--html .*file is a file, not a folder"),
    ("compare", ["--out", "{root}/p.html", "--html", "{root}/p.html", "--format", "csv"], "--out .*uses itself"),
    ("test", ["--export", "{root}/file/a.json"], "--export .*file is a file, not a folder"),
    ("test", ["--export", "{root}"], "--export .* must end in .json"),
    ("test", ["--export", "/proc/nowhere/a.json"], "--export .*/proc may not be written to"),
    ("test", ["--export-dataset", "{root}/file/a.json"], "--export-dataset .*file is a file"),
    ("test", ["--export", "a.json", "--export-dataset", "./a.json"], "--export-dataset .*uses itself"),
    ("test", ["--export", "results.json"], "--export results.json is a file that this command uses itself"),
    ("test", ["--export", "outputs/model_final.pth"], "must end in .json"),
    ("test", ["--export", "{val}"], "uses itself"),
    ("test", ["--detections", "{root}/theirs.json", "--export", "{root}/theirs.json"], "uses itself"),
    ("data", ["num-shots", "{val}", "--out", "{root}/file/a.npy"], "--out .*file is a file"),
    ("data", ["num-shots", "{val}", "--out", "a.txt"], r"--out a\.txt must end in \.npy or \.json"),
    ("data", ["num-shots", "{val}", "--out", "{val}", "--force"], "--out .*uses itself"),
    ("data", ["stats", "{val}", "--csv", "{root}"], "--csv .* must end in"),
    ("data", ["stats", "{val}", "--csv", "{root}/file/a.csv"], "--csv .*file is a file"),
    ("data", ["label-maps", "{val}", "--out", "{root}/file"], "--out .* not a folder to write into"),
    ("data", ["synth", "{root}/file/deeper"], "FOLDER .* not a folder to write into"),
    ("weights", ["convert", "absent.pth", "{root}/file/a.safetensors"], "the new file .*file is a file"),
    ("weights", ["convert", "a.safetensors", "./a.safetensors"], "the new file .*uses itself"),
    ("weights", ["convert", "a.pth", "b.pth"], r"b\.pth must end in \.safetensors"),
    ("weights", ["fetch", "https://localhost/cache/weights.pth"], "the copy in the cache .*file is a file"),
    ("demo", ["--keep", "{root}/file"], "--keep .* not a folder to write into"),
    ("zoo", ["--table", "{root}/file/table.md"], "--table .*file is a file"),
    ("zoo", ["--table", "table.csv"], r"table\.csv must end in \.md"),
]


@pytest.mark.parametrize(("command", "arguments", "words"), REFUSED)
def test_a_place_is_refused_before_the_work(made, monkeypatch, capsys, command, arguments, words):
    monkeypatch.chdir(made / "experiment")
    monkeypatch.setenv("XDG_CACHE_HOME", str(made / "file"))
    val = load_experiment(made / "experiment").config.data.test.annotations
    before = sorted(made.rglob("*")), os.stat(val).st_mtime_ns
    nothing_may_start(monkeypatch, *WORK[command])
    status, err = run(monkeypatch, capsys, command, *(text.format(root=made, val=val) for text in arguments))
    assert status == 2, err
    assert "Traceback" not in err
    assert re.search(words, err), err
    assert (sorted(made.rglob("*")), os.stat(val).st_mtime_ns) == before


def test_results_that_could_not_be_written_are_no_surprise_after_the_test(made, monkeypatch, capsys):
    nothing_may_start(monkeypatch, *WORK["test"])
    (made / "experiment" / "results.json").mkdir()
    try:
        status, err = run(monkeypatch, capsys, "test", "--dir", made / "experiment")
    finally:
        (made / "experiment" / "results.json").rmdir()
    assert status == 2
    assert "the file of the results" in err
    assert "is a folder" in err


def test_an_export_beside_the_results_is_written_and_both_are_right(made, monkeypatch, capsys):
    monkeypatch.chdir(made / "experiment")
    status, err = run(monkeypatch, capsys, "test", "--device", "cpu", "--export", "detections.json")
    assert status == 0, err
    assert isinstance(json.loads((made / "experiment" / "detections.json").read_text()), list)
    assert "bbox" in json.loads((made / "experiment" / "results.json").read_text())["metrics"]


def test_a_table_does_not_replace_the_results_that_it_compares(made, monkeypatch, capsys):
    results = made / "kept" / "results.json"
    results.parent.mkdir()
    results.write_text(json.dumps({"experiment": "a", "dataset": "d", "metrics": {"segm": {"AP": 1.0}}}))
    status, said = run(monkeypatch, capsys, "compare", results.parent, "--out", results, "--format", "csv")
    assert status == 2
    assert "uses itself" in said
    assert json.loads(results.read_text())["experiment"] == "a"

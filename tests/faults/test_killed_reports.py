"""kill -9 while a report is written: the file is the old one or the new one, and the next try is right."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from results_files import write_experiment, write_results

from cvpods_ext.evaluation.results import Results

DYING = """
import os, signal, sys
from pathlib import Path
from cvpods_ext.runtime import files

name, moment, module, *arguments = sys.argv[1:]
write, replace = Path.write_text, os.replace

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying_write(path, text, *rest, **more):
    if moment == "in the file" and name in path.name:
        write(path, text[: len(text) // 2], *rest, **more)
        die()
    return write(path, text, *rest, **more)

def dying_replace(source, target):
    if moment == "before the name" and Path(target).name == name:
        die()
    replace(source, target)
    if moment == "after the name" and Path(target).name == name:
        die()

Path.write_text, os.replace = dying_write, dying_replace
if module == "results":
    from cvpods_ext.evaluation.results import Results
    Results(experiment="a", dataset="lvis_v1_val", metrics={"segm": {"AP": 99.0}}).write(Path(arguments[0]))
else:
    import importlib
    sys.argv = [module, *arguments]
    importlib.import_module("cvpods_ext.cli." + module).main()
"""


def command(folder, file, moment, *arguments):
    """Exit status of a command that dies at `moment` of writing the file of this name."""
    line = [sys.executable, "-c", DYING, file, moment, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


REPORTS = {
    "results.json": ("results", "{folder}/results.json"),
    "table.md": ("compare", "{folder}", "--out", "{folder}/table.md"),
    "table.csv": ("compare", "{folder}", "--out", "{folder}/table.csv"),
    "README.md": ("report", "{folder}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["in the file", "before the name", "after the name"])
@pytest.mark.parametrize("file", REPORTS)
def test_a_killed_report_leaves_the_old_file_or_the_new_one(tmp_path, file, moment):
    folder = write_experiment(tmp_path / "a")
    write_results(folder, "a", {"AP": 22.5, "APr": 12.0, "APc": 21.0, "APf": 28.0})
    arguments = [text.format(folder=folder) for text in REPORTS[file]]
    path = Path(folder) / file
    if file != "results.json":
        path.write_text("# the one before\n")
    old = path.read_bytes()
    status, err = command(folder, file, moment, *arguments)
    assert status == -signal.SIGKILL, err
    left = path.read_bytes()
    others = {p.name: p.read_bytes() for p in folder.iterdir() if p.name.endswith((".py", ".json")) and p != path}
    status, err = command(folder, file, "never", *arguments)
    assert status == 0, err
    new = path.read_bytes()
    assert new != old
    assert left == (new if moment == "after the name" else old)
    assert all((folder / name).read_bytes() == content for name, content in others.items())
    assert Results.read(folder / "results.json").metrics["segm"]["AP"] == (99.0 if file == "results.json" else 22.5)

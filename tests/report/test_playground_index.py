"""The generated index: methods in words, published beside measured numbers, reasons to exist, stale files found out."""

from pathlib import Path

import pytest
from results_files import write_results

from cvpods_ext.cli import report as command
from cvpods_ext.report import header, playground, published

PLAYGROUND = Path(__file__).resolve().parents[2] / "playground"
CONFIG = '''"""{summary}

{question}Run:       pods_train
"""

from cvpods_ext.config import override
from cvpods_ext.config.bases import MASK_RCNN_LVIS1 as BASE
config = override(BASE)
'''
NET = "def build_model(cfg):\n    raise AssertionError('an index needs no model')\n"
START = "mask_rcnn.res50.fpn.lvisv1.multiscale"


def write(root, name, summary, question=""):
    folder = root / "lvis1.0" / name
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(CONFIG.format(summary=summary, question=question))
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture
def root(tmp_path):
    write(tmp_path, f"{START}.1x", "Mask R-CNN R50-FPN, LVIS v1.0.")
    write(tmp_path, f"{START}.mine.1x", "My loss on Mask R-CNN R50-FPN, LVIS v1.0.", "Question:  does it help?\n")
    return tmp_path


def rows_of(text):
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| [") and "][" in line]


def test_the_standard_model_leads_and_methods_are_words(root):
    text = playground.render(root)
    assert f"### {START}\n" in text
    assert [row[:2] for row in rows_of(text)] == [
        ["[1x][lvis1.0.1.1]", "standard model"],
        ["[mine.1x][lvis1.0.1.2]", "My loss"],
    ]
    assert f"[lvis1.0.1.2]: lvis1.0/{START}.mine.1x" in text


def test_every_folder_has_a_source_or_a_question(root):
    first, second = rows_of(playground.render(root))
    assert first[2:] == ["18.8 / 0.9", "18.3 / 1.0", "1"]
    assert second[2:] == ["-", "-", "2"]
    notes = [line for line in playground.render(root).splitlines() if line[:3] in ("1. ", "2. ")]
    assert notes[0].startswith("1. DisAlign, README.md of the experiment folder (https://github.com")
    assert notes[1] == "2. Question: does it help?"


def test_measured_numbers_are_means_over_the_runs_that_a_folder_keeps(root):
    for seed, value in enumerate((12.0, 14.0)):
        folder = root / "lvis1.0" / f"{START}.mine.1x" / "results" / f"seed{seed}"
        write_results(folder, f"{START}.mine.1x", {"AP": value, "APr": None}, seed=seed)
    text = playground.render(root)
    assert "| mask AP / APr |" in text
    assert rows_of(text)[1][2:] == ["-", "13.0 / n/a", "-", "2"]
    assert "| [lvis1.0](#lvis10) | 2 | 1 | 1 |" in text


def test_rows_are_short_however_long_a_sentence_is(root):
    long = "A method whose name takes many more words than a row has room for, and then some more of them on top of it"
    write(root, f"{START}.long.1x", f"{long} on Mask R-CNN R50-FPN, LVIS v1.0.")
    lines = playground.render(root).splitlines()
    assert max(len(line) for line in lines if line.startswith("|")) < 120
    assert any("takes many more words than a row" in line and "…" in line for line in lines)


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


def test_every_folder_of_our_playground_was_published_or_answers_a_question():
    folders = [path.parent for path in PLAYGROUND.glob("*/*/config.py")]
    assert len(folders) > 90
    unexplained = [f.name for f in folders if not published.load().get(f.name) and not header.read(f).question]
    assert not unexplained


def test_rows_of_our_index_are_short_and_hold_no_source_code():
    rows = [line for line in playground.render(PLAYGROUND).splitlines() if line.startswith("|")]
    assert max(map(len, rows)) < 120
    assert not [row for row in rows if "cfg." in row or "=" in row]

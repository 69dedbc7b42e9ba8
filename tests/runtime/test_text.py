"""Text for a terminal: nothing in it is obeyed, and a message fits on the screen."""

import io
import logging
import sys

import pytest

from cvpods_ext.cli.common import guarded
from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime.log import setup_logging
from cvpods_ext.runtime.text import folded, printable_lines, width_of

LONG = "runs/x is not an experiment: config.py is missing. Run inside a folder such as playground/lvis1.0/<name>."


def test_what_a_terminal_would_obey_is_spelled_out_and_line_ends_stay():
    assert printable_lines("two \x1b[2J\nlines\r \udcff 猫") == "two \\x1b[2J\nlines\\r \\udcff 猫"


def test_a_long_line_is_folded_between_words():
    lines = folded(LONG, 40).split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 40
    assert " ".join(line.strip() for line in lines) == LONG


def test_commands_paths_and_lists_stay_whole():
    text = f"first\n  cd {'x' * 90} && pods_train\n{'/folder' * 10}"
    assert folded(text, 40) == text


def test_the_width_is_that_of_columns_and_never_more_than_prose_can_be(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width_of(io.StringIO()) is None
    for given, width in (("80", 80), ("300", 100), ("3", 20), ("wide", None), ("-80", None)):
        monkeypatch.setenv("COLUMNS", given)
        assert width_of(io.StringIO()) == width


def fail(message):
    def body():
        raise ConfigError(message)

    return body


def test_a_refusal_is_folded_on_a_screen_and_whole_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        guarded("pods_any", fail(LONG))
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 60
    monkeypatch.delenv("COLUMNS")
    with pytest.raises(SystemExit):
        guarded("pods_any", fail(LONG))
    assert capsys.readouterr().err == f"pods_any: {LONG}\n"


def test_names_reach_neither_terminal_nor_log_as_commands(tmp_path, capsys):
    setup_logging(tmp_path)
    try:
        logging.getLogger("cvpods_ext").warning("weights of %s", "\x1b[31mevil")
    finally:
        setup_logging()
    with pytest.raises(SystemExit):
        guarded("pods_any", fail("no \x1b[31mevil"))
    shown = capsys.readouterr().err + (tmp_path / "log.txt").read_text()
    assert "\x1b" not in shown
    assert shown.count("\\x1b[31mevil") == 3


def test_a_refusal_is_written_even_where_the_encoding_is_narrow(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stderr", narrow)
    with pytest.raises(SystemExit) as ended:
        guarded("pods_any", fail("file \udcff.json is absent"))
    assert ended.value.code == 2
    assert narrow.buffer.getvalue() == b"pods_any: file \\udcff.json is absent\n"

"""The frame of every page: nothing from outside becomes markup, and every name reaches the script as it is."""

import json
import re
import shutil
import subprocess

import pytest

from cvpods_ext.report.html import render
from cvpods_ext.report.table import Cell, Table
from cvpods_ext.report.task_report import PagePart

NAMES = [
    "<!--<script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a&amp;b",
    "\u2028\u2029",
    "猫",
]
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
SCRIPT = (
    'for (const name of JSON.parse(document.getElementById("data").textContent)) '
    '{ const p = document.createElement("p"); p.className = "shown"; p.textContent = name; document.body.append(p); }'
)


def test_names_in_tables_are_text_and_names_in_data_are_escaped():
    table = Table("<b>t</b>", ("experiment", "AP"), tuple((Cell(name), Cell("1.0", 1.0, best=True)) for name in NAMES))
    page = render("</title><script>", [table], PagePart(data=NAMES, script="start()"))
    assert "<script>alert" not in page
    assert "<b>t</b>" not in page
    assert "<!--" not in page
    assert "<img" not in page
    block = re.search(r'<script type="application/json" id="data">([^<]*)</script><script>start\(\)</script>', page)
    assert block, "the data hold no character that could begin markup"
    assert not set(block[1]) & set("<>&\u2028\u2029")
    assert json.loads(block[1]) == NAMES


def test_half_a_surrogate_pair_in_a_name_can_be_written():
    page = render("t", [Table("t", ("name",), ((Cell("\ud800"),),))])
    assert '<td class="words">?</td>' in page
    page.encode("utf-8")


def test_a_page_of_tables_alone_has_no_script():
    assert "<script" not in render("t", [Table("t", ("name",), ((Cell("a"),),))])


@pytest.mark.skipif(BROWSER is None, reason="no headless browser (apt-get install chromium)")
def test_a_browser_runs_the_script_whatever_the_names_are(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(render("t", [], PagePart(data=NAMES, script=SCRIPT)), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run([BROWSER, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.count('<p class="shown">') == len(NAMES)

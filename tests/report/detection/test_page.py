"""The page of detections: self-contained, true to the numbers, and its script works in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cvpods_ext.evaluation.detection.protocol import Curves
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report.detection import page as detection_page

COMMAND = "from cvpods_ext.cli.compare import main; main()"


@pytest.fixture(scope="module")
def page(playground):
    out = playground / "report.html"
    run = subprocess.run(
        [sys.executable, "-c", COMMAND, str(playground), "--resamples", "50", "--html", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return out


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_page_refers_to_nothing_outside_itself(page):
    text = page.read_text(encoding="utf-8")
    assert "Content-Security-Policy" in text
    assert "default-src 'none'" in text
    tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text)
    assert tags
    assert not [tag for tag in tags if "src=" in tag or "href=" in tag]


def test_category_aps_average_to_the_measured_ap(page, playground):
    data = data_of(page)
    for position, name in enumerate(data["runs"]):
        measured = Results.read(playground / name / "results.json").metrics["segm"]
        values = [category["values"][position] for category in data["categories"]]
        assert np.mean(values) == pytest.approx(measured["AP"], abs=1e-3)
        for group in "rcf":
            members = [c["values"][position] for c in data["categories"] if c["group"] == group]
            assert np.mean(members) == pytest.approx(measured[f"AP{group}"], abs=1e-3)


def test_thumbnails_are_pictures_of_a_legible_size_with_both_colours(page):
    shown = [one for category in data_of(page)["categories"] for one in category["examples"]]
    assert len(shown) > 30
    reds = greens = 0
    for one in shown[:40]:
        assert one["image"].startswith("data:image/jpeg;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(one["image"].split(",")[1])))
        assert 120 <= max(picture.size) <= 180
        pixels = np.asarray(picture).astype(int)
        reds += bool((np.abs(pixels - (225, 30, 40)).sum(axis=2) < 90).sum() > 20)
        greens += bool((np.abs(pixels - (0, 170, 60)).sum(axis=2) < 90).sum() > 20)
    assert reds >= sum(one["prediction"] is not None for one in shown[:40]) * 0.9
    assert greens >= sum(one["truth"] is not None for one in shown[:40]) * 0.9


def test_the_number_of_pictures_is_bounded(page):
    data = data_of(page)
    assert sum(len(category["examples"]) for category in data["categories"]) <= 800


def test_group_precision_leaves_out_categories_without_ground_truth():
    precision = np.full((10, 101, 3, 4), -1.0)
    precision[:, :, 0], precision[:, :, 1] = 0.2, 0.6
    curves = Curves(precision, np.full((10, 3, 4), -1.0))
    np.testing.assert_allclose(detection_page.group_precision(curves, np.array([True, True, True])), 0.4)
    assert detection_page.group_precision(curves, np.array([False, False, True])) is None


def test_results_without_their_experiment_are_reported(playground, tmp_path):
    shutil.copy(playground / "good" / "results.json", tmp_path / "results.json")
    run = subprocess.run(
        [sys.executable, "-c", COMMAND, str(tmp_path), "--html", str(tmp_path / "x.html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "lies in no experiment folder" in run.stderr
    assert not (tmp_path / "x.html").exists()


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
CLICKS = """<script>
(async () => {
const rows = () => [...document.querySelectorAll("#categories tr.category")];
const explained = ["classification", "localisation", "both", "duplicate", "background"];
const press = (selector) => document.querySelector(selector).click();
const seen = { all: rows().length, order: rows().map((r) => r.dataset.name) };
press("#categories tr.category");
seen.thumbs = document.querySelectorAll(".thumb").length;
const images = [...document.querySelectorAll(".thumb img")];
await Promise.all(images.map((image) => image.decode()));  // rejects what is not a picture
seen.loaded = images.filter((image) => image.naturalWidth > 0).length;
for (const kind of explained) press(`input[value="${kind}"]`);
seen.errors = [...new Set([...document.querySelectorAll(".thumb")].map((t) => t.dataset.error))];
for (const kind of explained) press(`input[value="${kind}"]`);
press('input[value="c"]'); press('input[value="f"]');
seen.rare = rows().map((r) => r.children[1].textContent);
press('input[value="c"]'); press('input[value="f"]');
press('th[data-key="value0"]');
seen.sorted = rows().map((r) => Number(r.children[4].textContent));
press("#categories tr.category");
const names = () => [...new Set([...document.querySelectorAll(".run-name")].map((name) => name.textContent))];
seen.both = names();
press('input[name="run"][value="0"]');
seen.hidden = [...document.querySelectorAll('[data-run="0"]')].every((mark) => mark.style.display === "none");
seen.chosen = names();
seen.reload = performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length;
document.body.setAttribute("data-seen", JSON.stringify(seen));
})();
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no headless browser (apt-get install chromium)")
def test_a_browser_filters_sorts_and_opens_categories_offline(page, tmp_path):
    copy = tmp_path / "clicked.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", CLICKS), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    run = subprocess.run(
        [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'data-seen="([^"]*)"', run.stdout)
    assert found, "the script of the page failed"
    seen = json.loads(found[1].replace("&quot;", '"'))
    data = data_of(page)
    by_effect = sorted(data["categories"], key=lambda c: (-c["effect"], c["name"]))
    assert seen["order"] == [category["name"] for category in by_effect]
    assert seen["thumbs"] == len(by_effect[0]["examples"]) > 0
    assert seen["loaded"] == seen["thumbs"]
    assert set(seen["errors"]) <= {"missed"}
    assert set(seen["rare"]) == {"rare"}
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True)
    assert seen["hidden"]
    assert seen["both"] == data["runs"]
    assert seen["chosen"] == data["runs"][1:], "only the errors of the chosen run"
    assert seen["reload"] == 0

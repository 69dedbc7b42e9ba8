"""README cards: rendered, idempotent, checked, and careful with what people wrote."""

import json
import subprocess
import sys

import pytest
from results_files import write_experiment, write_results

from cvpods_ext.errors import ConfigError
from cvpods_ext.report import card

NAME = "mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.1x"
CONFIG = 'config = override(BASE, data=dict(sampler="repeat_factor"))\n'


@pytest.fixture
def experiment(tmp_path):
    folder = write_experiment(tmp_path / NAME, CONFIG)
    write_results(folder, NAME, {"AP": 22.04, "APr": None}, changes={"data.sampler": ["uniform", "repeat_factor"]})
    return folder


def test_a_card_shows_changes_measured_and_published_numbers(experiment):
    text = card.render(experiment)
    assert "| data.sampler | uniform | repeat_factor |" in text
    assert "| metric | bbox | bbox published | segm | segm published |" in text
    assert "| AP | - | 22.9 | 22.0 | 22.5 |" in text
    assert "| AP50 | - | 37.3 | - | 35.0 |" in text
    assert "| APr | - | 11.4 | n/a | 12.3 |" in text
    assert "seed 0" in text
    assert "images 100" in text


def test_a_card_gives_the_address_of_published_weights(experiment, tmp_path):
    assert "Published weights" not in card.render(experiment)
    folder = write_experiment(tmp_path / "mask_rcnn.res50.fpn.coco.multiscale.1x", CONFIG)
    assert "Published weights: `detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x/" in card.render(folder)


def test_a_card_states_the_protocol_of_a_known_test_set(experiment):
    assert "Protocol of LVIS: the best 300 detections of an image count; evaluated are in each image" in card.render(
        experiment
    )


def test_prose_around_the_block_survives_and_a_second_run_changes_nothing(experiment):
    readme = experiment / "README.md"
    readme.write_text(f"# Mine\nbefore\n{card.BEGIN}\nstale block\n{card.END}\nafter\n")
    assert card.update(experiment)
    text = readme.read_text()
    assert text.startswith("# Mine\nbefore\n" + card.BEGIN)
    assert text.endswith(card.END + "\nafter\n")
    assert "stale block" not in text
    assert not card.update(experiment)
    assert card.check(experiment) == []


def test_a_missing_readme_is_made_with_the_name_as_title(experiment):
    assert card.check(experiment) == [f"{experiment / 'README.md'} is missing; run pods_report {experiment}"]
    assert card.update(experiment)
    assert (experiment / "README.md").read_text().startswith(f"# {NAME}\n\n{card.BEGIN}")


def test_check_finds_a_number_that_was_typed(experiment):
    card.update(experiment)
    readme = experiment / "README.md"
    readme.write_text(readme.read_text().replace("| 22.0 |", "| 32.0 |"))
    difference = card.check(experiment)
    assert any(line.startswith("-") and "32.0" in line for line in difference)
    assert any(line.startswith("+") and "22.0" in line for line in difference)


def test_check_finds_results_and_configs_that_changed_after_the_card(experiment):
    card.update(experiment)
    path = experiment / "results.json"
    content = json.loads(path.read_text())
    content["metrics"]["segm"]["AP"] = 23.0
    path.write_text(json.dumps(content))
    assert card.check(experiment)
    card.update(experiment)
    assert card.check(experiment) == []


def test_broken_markers_are_refused_and_nothing_is_written(experiment):
    readme = experiment / "README.md"
    readme.write_text(f"text\n{card.END}\n{card.BEGIN}\n")
    with pytest.raises(ConfigError, match="once each, in this order"):
        card.update(experiment)
    assert readme.read_text() == f"text\n{card.END}\n{card.BEGIN}\n"


def test_an_untrained_experiment_says_so(tmp_path):
    folder = write_experiment(tmp_path / "fresh")
    text = card.render(folder)
    assert "The base configuration, unchanged." in text
    assert "Not measured yet" in text


def test_the_command_writes_then_checks_then_fails_on_disagreement(experiment):
    def run(*arguments):
        code = "from cvpods_ext.cli.report import main; main()"
        command = [sys.executable, "-c", code, *arguments, str(experiment.parent)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("--check").returncode == 1
    assert "written" in run().stdout
    assert run("--check").returncode == 0
    readme = experiment / "README.md"
    readme.write_text(readme.read_text().replace("22.0", "99.0"))
    failed = run("--check")
    assert failed.returncode == 1
    assert "99.0" in failed.stdout
    assert "1 cards disagree" in failed.stderr


def test_a_folder_without_experiments_is_reported(tmp_path):
    with pytest.raises(ConfigError, match="no experiment"):
        card.experiments([tmp_path])


def test_the_runs_that_a_folder_keeps_are_one_column_with_their_seeds_below(experiment):
    for seed, value in ((1, 24.0), (2, 26.0)):
        kept = experiment / "results" / f"seed{seed}"
        changes = {"data.sampler": ["uniform", "repeat_factor"], "seed": [0, seed]}
        write_results(kept, NAME, {"AP": value, "APr": None}, seed=seed, changes=changes)
    text = card.render(experiment)
    assert "| metric | bbox, 3 runs | bbox published | segm, 3 runs | segm published |" in text
    assert "| AP | - | 22.9 | 24.0 [22.0, 26.0] | 22.5 |" in text
    assert "seeds 0, 1, 2" in text

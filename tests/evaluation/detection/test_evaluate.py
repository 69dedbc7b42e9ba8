import json
import subprocess
import sys

import numpy as np
import pytest
import reference_evaluator
from evaluation_cases import box_mask, perturbed, rle_json, synthetic, write_case, write_empty
from shared import shared

from cvpods_ext.data.statistics import FrequencyGroups
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.detection.evaluate import evaluate

OWN_COUNTS = "derived from image counts of annotations.json itself: rare <= 10 < common <= 100 < frequent"

TOLERANCE = 1e-9  # of metrics in percent


def assert_same(first, second):
    assert set(first) >= set(second)
    for name, expected in second.items():
        if expected is None:
            assert first[name] is None, name
        else:
            assert first[name] == pytest.approx(expected, abs=TOLERANCE), name


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    annotations = json.loads(shared("data/lvis_v0.5_val_100.json").read_text())
    detections = perturbed(annotations)
    return annotations, detections, write_case(tmp_path_factory.mktemp("real"), annotations, detections)


@pytest.mark.parametrize("evaluator", ["own", "hotcoco"])
def test_real_lvis_file_agrees_with_the_official_evaluator(evaluator, real):
    ours, theirs = (evaluate(*real[2], evaluator=name) for name in (evaluator, "lvis"))
    for task in ("bbox", "segm"):
        assert_same(ours[task], theirs[task])
        assert 20 < ours[task]["AP"] < 95, "the detections are neither perfect nor noise"
    assert ours.settings["protocol"] == "lvis"
    assert ours.settings["images"] == 100
    assert ours["bbox"] != ours["segm"]


def test_fewer_detections_per_image_agree_with_the_official_evaluator(real):
    ours, theirs = (evaluate(*real[2], ("bbox",), max_detections=9, evaluator=name) for name in ("own", "lvis"))
    assert_same(ours["bbox"], theirs["bbox"])
    assert ours["bbox"]["AP"] < evaluate(*real[2], families=("bbox",))["bbox"]["AP"]


@pytest.mark.parametrize("seed", range(6))
def test_corner_cases_agree_with_the_official_evaluator_and_with_the_definition(seed, tmp_path):
    annotations, detections = synthetic(seed)
    case = write_case(tmp_path, annotations, detections)
    ours, other, theirs = (evaluate(*case, evaluator=name) for name in ("own", "hotcoco", "lvis"))
    for task in ("bbox", "segm"):
        assert_same(ours[task], theirs[task])
        assert_same(other[task], theirs[task])
        assert_same(ours[task], reference_evaluator.evaluate(annotations, detections, task))
        assert ours[task]["APr"] is None


def test_more_than_300_detections_on_an_image_agree(tmp_path):
    annotations, detections = synthetic(11, images=3, per_image=450)
    case = write_case(tmp_path, annotations, detections)
    ours, theirs, all_of_them = (
        evaluate(*case, families=("bbox",), evaluator=name, max_detections=limit)["bbox"]
        for name, limit in (("own", 300), ("lvis", 300), ("own", 1000))
    )
    assert_same(ours, theirs)
    assert_same(ours, reference_evaluator.evaluate(annotations, detections, "bbox"))
    assert ours["AP"] != all_of_them["AP"]
    assert_same(all_of_them, evaluate(*case, families=("bbox",), evaluator="lvis", max_detections=1000)["bbox"])


@pytest.mark.parametrize("evaluator", ["own", "hotcoco", "lvis"])
def test_no_detections_at_all_score_zero(evaluator, tmp_path):
    annotations, _ = synthetic(3)
    result = evaluate(*write_case(tmp_path, annotations, []), evaluator=evaluator)
    for task in ("bbox", "segm"):
        assert result[task]["AP"] == result[task]["AR"] == 0.0
        assert result[task]["APr"] is None


@pytest.mark.parametrize("evaluator", ["own", "hotcoco", "lvis"])
def test_a_match_with_annotation_id_0_counts(evaluator, tmp_path):
    box = [10.0, 10.0, 40.0, 40.0]
    annotations = {
        "images": [{"id": 1, "height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
        "categories": [{"id": 1, "name": "a", "frequency": "f"}],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 1, "bbox": box, "area": 1600.0}],
    }
    case = write_case(tmp_path, annotations, [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5}])
    assert evaluate(*case, families=("bbox",), evaluator=evaluator)["bbox"]["AP"] == pytest.approx(100.0)


@pytest.fixture(scope="module", params=["train2017", "val2017"])
def coco(request, tmp_path_factory):
    path = shared(f"data/datasets/coco/annotations/instances_{request.param}.json")
    annotations = json.loads(path.read_text())
    detections = perturbed(annotations, seed=5)
    return annotations, detections, write_case(tmp_path_factory.mktemp("coco"), annotations, detections)


def test_coco_file_agrees_with_pycocotools(coco):
    ours, other, theirs = (evaluate(*coco[2], evaluator=name) for name in ("own", "hotcoco", "lvis"))
    for task in ("bbox", "segm"):
        assert_same(other[task], theirs[task])
        assert_same(ours[task], theirs[task])
        assert ours[task]["AR1"] < ours[task]["AR10"] <= ours[task]["AR"]
    assert ours.settings["protocol"] == "coco"
    assert ours.settings["max_detections"] == 100
    assert theirs.settings["evaluator"] == "pycocotools"
    assert ours.settings["frequency"] == OWN_COUNTS


@pytest.mark.parametrize("seed", range(4))
def test_coco_corner_cases_agree_with_pycocotools(seed, tmp_path):
    annotations, detections = synthetic(seed, per_image=250)
    for image in annotations["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for category in annotations["categories"]:
        del category["frequency"]
    case = write_case(tmp_path, annotations, detections)
    ours, other, theirs = (evaluate(*case, evaluator=name) for name in ("own", "hotcoco", "lvis"))
    for task in ("bbox", "segm"):
        assert_same(ours[task], theirs[task])
        assert_same(other[task], theirs[task])


def test_coco_without_detections_scores_zero(tmp_path):
    annotations, _ = synthetic(1)
    for image in annotations["images"]:
        del image["neg_category_ids"]
    for category in annotations["categories"]:
        del category["frequency"]
    case = write_case(tmp_path, annotations, [])
    for name in ("own", "lvis"):
        assert evaluate(*case, evaluator=name)["segm"]["AP"] == 0.0


def test_absent_frequencies_are_derived_and_said_so(tmp_path):
    annotations, detections = synthetic(2)
    for category in annotations["categories"]:
        del category["frequency"]
    case = write_case(tmp_path, annotations, detections)
    own = evaluate(*case, families=("bbox",))
    assert own.settings["frequency"] == OWN_COUNTS
    assert own["bbox"]["APr"] == own["bbox"]["AP"]  # six images: all are rare
    groups = FrequencyGroups(np.array(list("rccffrr")), "training images per class in train.json")
    given = evaluate(*case, ("bbox",), frequency=groups)
    assert given.settings["frequency"] == "training images per class in train.json"
    assert None not in (given["bbox"]["APr"], given["bbox"]["APc"], given["bbox"]["APf"])
    with pytest.raises(DataError, match="has 7 categories, the training set 2; they must be the same"):
        evaluate(*case, ("bbox",), frequency=FrequencyGroups(np.array(["r", "f"]), ""))


def test_a_test_set_without_annotations_has_no_metrics_and_a_line_that_says_why(tmp_path, caplog):
    annotations, detections = synthetic(2)
    annotations["annotations"] = []
    result = evaluate(*write_case(tmp_path, annotations, detections), families=("bbox",))
    assert set(result["bbox"].values()) == {None}
    assert "has no annotations, so every metric is n/a" in caplog.text


def test_lvis_file_without_negatives_counts_every_category_as_verified(tmp_path):
    annotations, detections = synthetic(4)
    case = write_case(tmp_path, annotations, detections)
    federated = evaluate(*case, families=("bbox",))
    for image in annotations["images"]:
        del image["neg_category_ids"]
    case[0].write_text(json.dumps(annotations))
    exhaustive = evaluate(*case, families=("bbox",))
    assert "every category counts as verified" in exhaustive.settings["negatives"]
    assert exhaustive["bbox"]["AP"] < federated["bbox"]["AP"]
    assert_same(exhaustive["bbox"], evaluate(*case, families=("bbox",), evaluator="lvis")["bbox"])


UNUSABLE_MASKS = {
    "absent": None,
    "empty": [],
    "empty polygon": [[]],
    "two points": [[1, 1, 30, 30]],
    "a vertex that is no number": [[1, 1, 30, 1, 30, float("nan")]],
    "a vertex beyond everything": [[1, 1, 30, 1, 30, 1e30]],
    "text": "1 1 30 1 30 30",
    "RLE of another size": {"size": [3, 3], "counts": [9]},
    "RLE that does not fill its image": {"size": [120, 120], "counts": [100]},
}


def perfect(annotations):
    """A detection for every annotation, as it is annotated."""
    names = ("image_id", "category_id", "bbox", "segmentation")
    return [{name: a[name] for name in names} | {"score": 0.9} for a in annotations["annotations"]]


@pytest.mark.parametrize("evaluator", ["own", "hotcoco", "lvis"])
@pytest.mark.parametrize("protocol", ["coco", "lvis"])
@pytest.mark.parametrize("kind", UNUSABLE_MASKS)
def test_an_object_without_a_usable_mask_costs_a_perfect_detector_nothing(kind, protocol, evaluator, tmp_path, caplog):
    annotations = squares(protocol)
    detections = perfect(annotations)
    annotations["annotations"][0]["segmentation"] = UNUSABLE_MASKS[kind]
    result = evaluate(*write_case(tmp_path, annotations, detections), evaluator=evaluator)
    assert result["bbox"]["AP"] == pytest.approx(100.0)
    assert result["segm"]["AP"] == pytest.approx(100.0)
    [(reason, count)] = result.settings["masks_not_evaluated"].items()
    assert count == 1
    assert reason in caplog.text


def squares(protocol):
    """Two images with two objects each of two classes; the annotations of an LVIS file are complete."""
    annotations = {"images": [], "annotations": [], "categories": [{"id": c, "name": f"c{c}"} for c in (1, 2)]}
    for image_id in (5, 3):
        annotations["images"].append({"id": image_id, "height": 120, "width": 120})
        for category_id in (1, 2):
            box = [10.0 * image_id, 40.0 * category_id, 30.0, 30.0]
            where = {"id": len(annotations["annotations"]) + 1, "image_id": image_id, "category_id": category_id}
            mask = {"segmentation": box_mask(120, 120, box)}
            annotations["annotations"].append({**where, "bbox": box, "area": 900.0, **mask})
    if protocol == "lvis":
        for image in annotations["images"]:
            image["neg_category_ids"] = image["not_exhaustive_category_ids"] = []
        for category in annotations["categories"]:
            category["frequency"] = "f"
    return annotations


@pytest.mark.parametrize(
    "box", [[0, 0, float("nan"), 5], [5, 5, -4, 4], [0, 0, 1e30, 1], "text", None, [1, 2, None, 4]]
)
@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_an_object_without_a_usable_box_costs_a_perfect_detector_nothing(box, protocol, tmp_path):
    annotations = squares(protocol)
    detections = perfect(annotations)
    annotations["annotations"][0]["bbox"] = box
    case = write_case(tmp_path, annotations, detections)
    for evaluator in ("own", "hotcoco", "lvis"):
        result = evaluate(*case, evaluator=evaluator)
        assert result["segm"]["AP"] == pytest.approx(100.0)
        assert result["bbox"]["AP"] == pytest.approx(100.0)
    note = "read_otherwise" if isinstance(box, str) or box is None or None in box else "boxes_not_evaluated"
    assert sum(result.settings[note].values()) == 1


DOUBTFUL = {
    "a crowd or not": {"iscrowd": "perhaps"},
    "ignored or not": {"ignore": 7},
    "a category that is not listed": {"category_id": 99},
    "a category that is text": {"category_id": "hat"},
    "no category": {"category_id": None},
    "no category and no box": {"category_id": 99, "bbox": [1, 1, 5, -5]},
    "no category and no mask": {"category_id": 99, "segmentation": [[1, 1, 2, 2]]},
    "two things at once": {"category_id": 99, "iscrowd": []},
}


@pytest.mark.parametrize("evaluator", ["own", "hotcoco", "lvis"])
@pytest.mark.parametrize("protocol", ["coco", "lvis"])
@pytest.mark.parametrize("kind", DOUBTFUL)
def test_an_object_of_unknown_kind_counts_neither_way(kind, protocol, evaluator, tmp_path, caplog):
    annotations = squares(protocol)
    detections = perfect(annotations)
    annotations["annotations"][0].update(DOUBTFUL[kind])
    case = write_case(tmp_path, annotations, detections)
    result = evaluate(*case, evaluator=evaluator)
    assert result["bbox"]["AP"] == pytest.approx(100.0)
    assert result["segm"]["AP"] == pytest.approx(100.0)
    [(reason, count)] = result.settings["annotations_not_evaluated"].items()
    assert count == 1
    assert f"1 object not held against the detections: {reason}" in caplog.text
    # It is not missed either.
    without = [one for one in detections if (one["image_id"], one["category_id"]) != (5, 1)]
    missed = evaluate(*write_case(tmp_path / "missed", annotations, without), evaluator=evaluator)
    assert missed["segm"]["AP"] == pytest.approx(100.0)


@pytest.mark.parametrize("evaluator", ["own", "hotcoco", "lvis"])
@pytest.mark.parametrize("protocol", ["coco", "lvis"])
@pytest.mark.parametrize("kind", ["a crowd or not", "ignored or not", "no category"])
def test_a_false_positive_elsewhere_on_the_image_of_an_object_of_unknown_kind_counts(
    kind, protocol, evaluator, tmp_path
):
    annotations = squares(protocol)
    first = annotations["annotations"][0]
    away = {"image_id": 5, "category_id": 2, "score": 0.95, "bbox": [80, 2, 30, 30]}
    away["segmentation"] = box_mask(120, 120, away["bbox"])
    detections = [*perfect(annotations), away]
    first.update(DOUBTFUL[kind])
    result = evaluate(*write_case(tmp_path, annotations, detections), evaluator=evaluator)
    assert result["segm"]["AP"] < 90
    assert result["bbox"]["AP"] < 90


def test_an_area_that_is_no_number_is_derived_and_counted(tmp_path):
    annotations = squares("coco")
    detections = perfect(annotations)
    for entry, area in zip(annotations["annotations"], ("N/A", [900], None, -1), strict=True):
        entry["area"] = area
    result = evaluate(*write_case(tmp_path, annotations, detections))
    assert result["segm"]["APs"] == pytest.approx(100.0)  # 900 is small; an area of 0 or none would be in no range
    [count] = result.settings["read_otherwise"].values()
    assert count == 4


def test_numbers_flags_and_ids_as_text_mean_what_they_say(tmp_path):
    annotations = squares("coco")
    detections = perfect(annotations)
    (tmp_path / "text").mkdir()
    expected = evaluate(*write_case(tmp_path, annotations, detections))
    for image in annotations["images"]:
        image.update(id=str(image["id"]), height="120.0", width=120.0)
    for entry in annotations["annotations"]:
        entry.update(iscrowd="0", category_id=f"{entry['category_id']}", image_id=float(entry["image_id"]))
        entry.update(bbox=[str(side) for side in entry["bbox"]], area="900")
    assert dict(evaluate(*write_case(tmp_path / "text", annotations, detections))) == dict(expected)


def test_a_file_without_any_mask_is_refused_for_masks_only(tmp_path):
    annotations = squares("coco")
    detections = perfect(annotations)
    for entry in annotations["annotations"]:
        del entry["segmentation"]
    case = write_case(tmp_path, annotations, detections)
    assert evaluate(*case, ("bbox",))["bbox"]["AP"] == pytest.approx(100.0)
    with pytest.raises(DataError, match=r"no annotation has a mask. Evaluate with test\.metrics=\('bbox',\)"):
        evaluate(*case)


@pytest.mark.parametrize("annotations", [[], None])
def test_a_file_without_annotations_has_no_metrics_and_is_no_error(annotations, tmp_path):
    content = squares("coco")
    detections = perfect(content)
    content["annotations"] = annotations
    result = evaluate(*write_case(tmp_path, content, detections))
    assert result["segm"]["AP"] is None


def test_missing_images_and_boxes_outside_are_reported(tmp_path, caplog):
    annotations, detections = synthetic(2)
    detections[0]["bbox"] = [-20.0, 0.0, 50.0, 50.0]
    result = evaluate(*write_case(tmp_path, annotations, detections), families=("bbox",))
    assert result.settings["boxes_outside_their_image"] >= 1
    assert result.settings["images_without_detections"] == 1
    assert "count as missed" in caplog.text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "image_id",
            999,
            r"^results\.json \(imported .*\) has 1 image id .*annotations\.json .*\[999\] \(first in detection 3\)",
        ),
        (
            "category_id",
            7777,
            r"^results\.json \(imported into .*\) has 1 category id that .*\[7777\] \(first in detection 3\)",
        ),
    ],
)
def test_ids_of_another_split_are_refused(field, value, message, tmp_path):
    annotations, detections = synthetic(2)
    detections[3][field] = value
    with pytest.raises(DataError, match=message):
        evaluate(*write_case(tmp_path, annotations, detections), families=("bbox",))


def test_mask_of_another_size_is_refused(tmp_path):
    annotations, detections = synthetic(2)
    detections[5]["segmentation"] = rle_json(np.ones((60, 60)))
    with pytest.raises(
        DataError,
        match=r"^results\.json \(imported into .*\), detection 5 .*size \[60, 60\].*\[120, 120\].*original image",
    ):
        evaluate(*write_case(tmp_path, annotations, detections), families=("segm",))


def test_segm_of_boxes_only_is_refused(tmp_path):
    annotations, detections = synthetic(2)
    for detection in detections:
        del detection["segmentation"]
    with pytest.raises(DataError, match=r"boxes only.*test\.metrics"):
        evaluate(*write_case(tmp_path, annotations, detections))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: a.pop("categories"), "has no 'categories'"),
        (lambda a: a["images"].append({**a["images"][0], "width": 7}), "image id .* stands for two pictures"),
        (lambda a: a["images"][0].pop("height"), r"1 image id that .*annotations\.json does not define"),
        (lambda a: a.update(annotations="none"), "'annotations' is a text, not a list"),
        (lambda a: a["categories"][0].update(name=None), "needs a whole-number id and a name"),
        (lambda a: a["categories"][0].update(name="\ud800"), "needs a whole-number id and a name"),
    ],
)
def test_broken_annotation_files_are_named(damage, message, tmp_path):
    annotations, detections = synthetic(2)
    damage(annotations)
    path, shards = write_case(tmp_path, annotations, detections)
    with pytest.raises(DataError, match=message) as raised:
        evaluate(path, shards)
    assert str(path) in str(raised.value)


def test_missing_truncated_and_foreign_annotation_files_are_named(tmp_path):
    annotations, _ = synthetic(2)
    write_empty(tmp_path / "shards", annotations)
    with pytest.raises(DataError, match=r"absent\.json does not exist"):
        evaluate(tmp_path / "absent.json", tmp_path / "shards")
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(annotations)[:500])
    with pytest.raises(DataError, match="cut off"):
        evaluate(broken, tmp_path / "shards")
    broken.write_text("[]")
    with pytest.raises(DataError, match="is it a results json"):
        evaluate(broken, tmp_path / "shards")


def test_an_unknown_family_is_refused_with_the_nearest_name_before_any_file_is_read(tmp_path):
    with pytest.raises(ConfigError, match=r"test\.metrics: unknown family 'segm_fixd'; did you mean 'segm_fixed'"):
        evaluate(tmp_path / "absent.json", tmp_path, families=("segm_fixd",))
    with pytest.raises(ConfigError, match="'hotcoco' does not know mask AP_fixed"):
        evaluate(tmp_path / "absent.json", tmp_path, families=("segm_fixed",), evaluator="hotcoco")


def test_evaluation_does_not_import_torch():
    imports = "import sys, cvpods_ext.evaluation.detection.evaluate, cvpods_ext.evaluation.results"
    code = f"{imports}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

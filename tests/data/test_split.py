"""One annotation file in two: nothing is lost, every class is trained."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpods_ext.data.split import split
from cvpods_ext.errors import DataError


def document(images_of_class):
    """A class for each entry, on these images."""
    count = 1 + max((max(images) for images in images_of_class if images), default=0)
    annotations = [
        dict(id=10 * i + c, image_id=i, category_id=c, bbox=[1, 1, 5, 5])
        for c, images in enumerate(images_of_class)
        for i in images
    ]
    return dict(
        info="kept",
        images=[dict(id=i, file_name=f"{i}.jpg") for i in range(count)],
        annotations=annotations,
        categories=[dict(id=c, name=f"class {c}") for c in range(len(images_of_class))],
    )


def parts(folder, content, share, seed=0):
    (folder / "all.json").write_text(json.dumps(content))
    numbers = split(folder / "all.json", folder / "train.json", folder / "val.json", share, seed)
    found = [json.loads((folder / f"{name}.json").read_text()) for name in ("train", "val")]
    assert numbers == tuple(len(one["images"]) for one in found)
    return found


@given(
    st.lists(st.sets(st.integers(0, 25), min_size=1), min_size=1, max_size=8),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_images_and_annotations_are_parted_and_every_class_is_trained(tmp_path_factory, classes, share, seed):
    content = document(classes)
    train, val = parts(tmp_path_factory.mktemp("split"), content, share, seed)
    for key in ("images", "annotations"):
        ids = [one["id"] for part in (train, val) for one in part[key]]
        assert sorted(ids) == sorted(one["id"] for one in content[key])
    own = {image["id"] for image in train["images"]}
    assert all((one["image_id"] in own) for one in train["annotations"])
    assert all((one["image_id"] not in own) for one in val["annotations"])
    assert {one["category_id"] for one in train["annotations"]} == set(range(len(classes)))
    assert train["categories"] == val["categories"] == content["categories"]
    assert train["info"] == "kept"
    assert len(val["images"]) <= max(1, round(share * len(content["images"])))


def test_rare_classes_are_tested_where_they_have_two_images(tmp_path):
    _, val = parts(tmp_path, document([range(40), range(20), (5, 6), (7,)]), 0.2)
    assert {one["category_id"] for one in val["annotations"]} >= {0, 1, 2}
    assert len(val["images"]) == 8


def test_the_same_seed_gives_the_same_parts(tmp_path):
    content = document([range(30), range(9)])
    first, again, other = (parts(tmp_path, content, 0.3, seed)[1]["images"] for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("content", "share"), [({"images": []}, 0.2), ([], 0.2), (document([range(4)]), 1.0)])
def test_what_cannot_be_split_is_told(tmp_path, content, share):
    with pytest.raises(DataError, match=r"lacks images|cannot be split off"):
        parts(tmp_path, content, share)
    assert not (tmp_path / "train.json").exists()

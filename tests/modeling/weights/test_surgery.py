"""Another class list: shared classes keep their rows, whatever their order and count."""

import csv

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shared import shared
from tiny_dino import NUM_CLASSES, tiny_dino

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.surgery import Category, carry_over, match_categories

NAMES = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=8, unique=True)


def head(num_classes, start=0.0):
    """A head whose values tell class and kind: class k has k in every row, the background -1."""
    classes = torch.arange(num_classes) + start
    background = torch.tensor([-1.0])
    return {
        "roi_heads.box_predictor.cls_score.weight": torch.cat([classes, background])[:, None].repeat(1, 3),
        "roi_heads.box_predictor.cls_score.bias": torch.cat([classes, background]),
        "roi_heads.box_predictor.bbox_pred.bias": (classes[:, None] + torch.tensor([0, 0.1, 0.2, 0.3])).flatten(),
        "roi_heads.mask_head.predictor.weight": classes[:, None, None, None],
        "roi_heads.box_predictor.logit_scale": classes,
        "roi_heads.box_head.fc1.weight": torch.ones(2, 2),
    }


@given(theirs=NAMES, ours=NAMES)
def test_every_shared_class_keeps_its_rows(theirs, ours):
    rows = match_categories([Category(name) for name in theirs], [Category(name) for name in ours])
    assert rows.tolist() == [theirs.index(name) if name in theirs else -1 for name in ours]
    initial = head(len(ours), start=100.0)
    adapted = carry_over(head(len(theirs)), rows, len(theirs), initial)
    expected = [float(theirs.index(name)) if name in theirs else 100.0 + k for k, name in enumerate(ours)]
    box = "roi_heads.box_predictor."
    assert adapted[f"{box}cls_score.bias"].tolist() == [*expected, -1.0]
    assert adapted[f"{box}cls_score.weight"][:, 2].tolist() == [*expected, -1.0]
    assert adapted[f"{box}bbox_pred.bias"][3::4].tolist() == pytest.approx([value + 0.3 for value in expected])
    assert adapted["roi_heads.mask_head.predictor.weight"].flatten().tolist() == expected
    assert adapted[f"{box}logit_scale"].tolist() == expected
    assert torch.equal(adapted["roi_heads.box_head.fc1.weight"], torch.ones(2, 2))


def test_classes_without_a_counterpart_are_zero_when_no_model_is_given():
    adapted = carry_over(head(2), torch.tensor([1, -1]), 2)
    assert adapted["roi_heads.box_predictor.cls_score.bias"].tolist() == [1, 0, -1]


def test_class_agnostic_tensors_stay():
    state = {**head(3), "roi_heads.box_predictor.bbox_pred.bias": torch.ones(4)}
    assert carry_over(state, torch.tensor([0]), 3)["roi_heads.box_predictor.bbox_pred.bias"].shape == (4,)


def test_a_wrong_class_list_is_an_error():
    with pytest.raises(WeightsError, match="wrong class list"):
        carry_over(head(3), torch.tensor([0]), 7)
    with pytest.raises(WeightsError, match="row 9"):
        carry_over(head(3), torch.tensor([9]), 3)


def test_synset_goes_before_name_and_name_before_synonym():
    theirs = [Category("bat", "bat.n.01"), Category("bat", "bat.n.05"), Category("mouse", synonyms=("rat",))]
    ours = [
        Category("baseball_bat", "bat.n.05"),
        Category("Bat (animal)"),
        Category("rat"),
        Category("hat", "hat.n.01"),
    ]
    assert match_categories(theirs, ours).tolist() == [1, 0, 2, -1]


def test_the_two_releases_of_lvis_share_their_categories_by_synset():
    releases = []
    for name in ("lvis_v0.5", "lvis_v1"):
        with open(shared(f"data/{name}_train_categories.csv"), newline="") as file:
            releases.append([Category(row["name"], row["synset"]) for row in csv.DictReader(file)])
    old, new = releases
    rows = match_categories(old, new)
    shared_synsets = {category.synset for category in old} & {category.synset for category in new}
    assert sum(new[k].synset == old[row].synset for k, row in enumerate(rows.tolist()) if row >= 0) >= len(
        shared_synsets
    )
    assert int((rows >= 0).sum()) > 1000
    banana = [category.name for category in new].index("banana")
    assert old[int(rows[banana])].name == "banana"


def test_a_transformer_detector_keeps_the_classes_that_two_data_sets_share():
    """In all its layers and their aliases; a new class scores 0.01, as before training."""
    old, new = tiny_dino(), tiny_dino(classes=4, seed=1)
    rows = torch.tensor([3, -1, 0, 6])
    adapted = carry_over(old.state_dict(), rows, NUM_CLASSES)
    report = load_into(new, adapted, "carried over")
    assert not report.missing
    assert not report.skipped
    states = torch.randn(5, 32)
    for layer in range(4):
        before, after = old.class_embed[layer](states), new.class_embed[layer](states)
        torch.testing.assert_close(after[:, [0, 2, 3]], before[:, [3, 0, 6]])
        torch.testing.assert_close(after[:, 1].sigmoid(), torch.full((5,), 0.01))
    torch.testing.assert_close(new.label_enc.weight[2], old.label_enc.weight[0])
    assert any("label_enc" in name for name in adapted)

from itertools import permutations

import numpy as np
import pytest
import torch

from cvpods_ext.modeling.detr.boxes import generalized_iou, to_corners
from cvpods_ext.modeling.detr.matcher import MatchingCost, Objects, PendingPairs, Predictions, solve


def problem(counts, queries=5, sets=2, classes=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(sets, len(counts), queries, classes, generator=rng)
    boxes = 0.2 + 0.3 * torch.rand(sets, len(counts), queries, 4, generator=rng)
    most = max(counts)
    labels = torch.randint(classes, (len(counts), most), generator=rng)
    truth = 0.2 + 0.3 * torch.rand(len(counts), most, 4, generator=rng)
    for row, count in zip(labels, counts, strict=True):
        row[count:] = -1
    return Predictions(logits, boxes), Objects(labels, truth, tuple(counts))


def slow_cost(logits, box, label, truth):
    """One query and one object."""
    p = logits[label].sigmoid().item()
    positive = -0.25 * (1 - p) ** 2 * np.log(p + 1e-8)
    negative = -0.75 * p**2 * np.log(1 - p + 1e-8)
    distance = (box - truth).abs().sum().item()
    overlap = generalized_iou(to_corners(box), to_corners(truth)).item()
    return 2 * (positive - negative) + 5 * distance - 2 * overlap


def test_the_cost_equals_the_formula_entry_by_entry():
    predictions, objects = problem([2, 3])
    cost = MatchingCost()(predictions, objects)
    assert cost.shape == (2, 2, 5, 3)
    for k, n, q in np.ndindex(2, 2, 5):
        for g in range(objects.counts[n]):
            expected = slow_cost(
                predictions.logits[k, n, q], predictions.boxes[k, n, q], objects.labels[n, g], objects.boxes[n, g]
            )
            assert cost[k, n, q, g].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("counts", [[2, 3], [0, 4], [5, 1]])
def test_the_assignment_costs_as_little_as_any(counts):
    cost = np.random.default_rng(0).random((2, 2, 5, max(counts)))
    _, _, query, of = solve(cost, counts)
    for k, n in np.ndindex(2, 2):
        mine = (solve(cost, counts)[0] == k) & (solve(cost, counts)[1] == n)
        assert len(set(query[mine])) == counts[n]
        assert sorted(of[mine]) == list(range(counts[n]))
        best = min(sum(cost[k, n, q, g] for g, q in enumerate(order)) for order in permutations(range(5), counts[n]))
        assert cost[k, n, query[mine], of[mine]].sum() == pytest.approx(best)


def test_more_objects_than_queries_leave_objects_without_a_query():
    found = solve(np.random.default_rng(0).random((1, 1, 3, 7)), [7])
    assert sorted(found[2]) == [0, 1, 2]
    assert len(set(found[3])) == 3


def test_no_objects_give_no_pairs():
    predictions, _ = problem([1, 1])
    empty = Objects(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, 4), (0, 0))
    pairs = PendingPairs(MatchingCost()(predictions, empty), empty.counts).result()
    assert [len(x) for x in pairs] == [0, 0, 0, 0]


def test_a_prediction_that_is_not_finite_is_still_assigned():
    predictions, objects = problem([2, 3])
    predictions.logits[0, 0] = torch.nan
    pairs = PendingPairs(MatchingCost()(predictions, objects), objects.counts).result()
    assert len(pairs.query) == 2 * 5

import torch

from cvpods_ext.modeling.detr.postprocess import BestPairs

SIZES = torch.tensor([[100.0, 50.0, 100.0, 50.0]])
BOXES = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.1, 0.1]]])
SCORES = torch.tensor([[[0.9, 0.1, 0.8], [0.2, 0.85, 0.0]]])


def test_the_best_pairs_of_query_and_class_best_first():
    (found,) = BestPairs(limit=3)(SCORES, BOXES, SIZES)
    assert found.scores.tolist() == SCORES[0].flatten().sort(descending=True).values[:3].tolist()
    assert found.labels.tolist() == [0, 1, 2]
    first, second = [40.0, 15.0, 60.0, 35.0], [20.0, 22.5, 30.0, 27.5]  # in pixels
    assert torch.allclose(found.boxes, torch.tensor([first, second, first]))


def test_scores_lie_strictly_above_the_threshold():
    (found,) = BestPairs(limit=300, score_threshold=0.8)(SCORES, BOXES, SIZES)
    assert found.labels.tolist() == [0, 1]
    (found,) = BestPairs(limit=300)(SCORES, BOXES, SIZES)
    assert len(found.labels) == 5  # one score is 0

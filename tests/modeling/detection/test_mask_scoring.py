import pytest
import torch

from cvpods_ext.modeling.detection.mask_scoring import maskness, rescore
from cvpods_ext.modeling.detection.postprocess import RawDetections, Selection


def test_mean_of_the_pixels_above_the_threshold_by_hand():
    masks = torch.tensor([[[0.9, 0.7], [0.5, 0.1]], [[0.5, 0.5], [0.4, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert maskness(masks, 0.5).tolist() == pytest.approx([0.8, 0.0, 1.0])  # 0.5 itself is not above


@pytest.mark.parametrize("limit", [1, 3, 10, 64, 200])
def test_stopping_early_gives_the_best_of_all(limit):
    torch.manual_seed(0)
    scores = torch.rand(64).sort(descending=True).values
    found = RawDetections(torch.arange(256.0).view(64, 4), scores, torch.arange(64))
    masks = torch.rand(64, 3, 3)
    asked = []

    def masks_of(part):
        asked.extend(part.labels.tolist())
        return masks[part.labels]

    best = rescore(found, masks_of, Selection(limit=limit, maskness_threshold=0.5))
    expected, order = (scores * maskness(masks, 0.5)).sort(descending=True)
    assert torch.equal(best.labels, order[:limit])
    torch.testing.assert_close(best.scores, expected[:limit])
    assert torch.equal(best.boxes, found.boxes[order[:limit]])
    assert torch.equal(best.mask_probabilities, masks[order[:limit]])
    assert asked == list(range(len(asked)))  # each once, best first
    assert len(asked) < 64 or limit > 3


@pytest.mark.parametrize(("limit", "per_class", "kept"), [(None, 2, [4, 1, 0, 5]), (3, 2, [4, 1, 0]), (None, None, 6)])
def test_limits_count_after_the_masks_have_lowered_the_scores(limit, per_class, kept):
    # scores after maskness: 0.45 0.6 0.28 0.07 0.65 0.4
    found = RawDetections(
        torch.arange(24.0).view(6, 4),
        torch.tensor([0.9, 0.8, 0.7, 0.7, 0.65, 0.5]),
        torch.tensor([0, 0, 0, 0, 1, 1]),
    )
    sure = torch.tensor([0.5, 0.75, 0.4, 0.1, 1.0, 0.8])
    selection = Selection(limit=limit, limit_per_class=per_class, maskness_threshold=0.05)
    best = rescore(found, lambda part: sure[(part.boxes[:, 0] / 4).long()][:, None, None].expand(-1, 2, 2), selection)
    rows = (best.boxes[:, 0] / 4).long().tolist()
    assert rows == (kept if isinstance(kept, list) else [4, 1, 0, 5, 2, 3])
    assert best.mask_probabilities is not None
    assert best.mask_probabilities[:, 0, 0].tolist() == [sure[row].item() for row in rows]


def test_no_detections():
    empty = RawDetections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    best = rescore(empty, lambda part: torch.zeros(len(part.labels), 28, 28), Selection(maskness_threshold=0.5))
    assert best.mask_probabilities is not None
    assert best.mask_probabilities.shape == (0, 28, 28)

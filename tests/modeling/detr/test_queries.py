import math

import pytest
import torch
from tiny_dino import tiny_batch, tiny_dino

from cvpods_ext.modeling.detr.position import levels_of
from cvpods_ext.modeling.detr.queries import anchor_logits, best_tokens, refine, take_rows


def logit(p):
    return math.log(p / (1 - p))


def test_anchors_by_hand():
    levels = levels_of(torch.tensor([[96.0, 128.0, 96.0, 128.0]]), (128, 128), [(8, 8), (4, 4)])
    anchors = anchor_logits(levels)[0]
    # the second cell of the first row of level 0: 1.5 of 6 filled columns, 0.5 of 8 rows, side 0.05
    assert anchors[1].tolist() == pytest.approx([logit(1.5 / 6), logit(0.5 / 8), logit(0.05), logit(0.05)], abs=1e-5)
    # level 1 has twice the side
    assert anchors[64].tolist() == pytest.approx([logit(0.5 / 3), logit(0.5 / 4), logit(0.1), logit(0.1)], abs=1e-5)
    assert anchors[6].isinf().all()  # in the padding
    assert anchors.isinf().all(dim=1).sum() == 8 * 2 + 4 * 1


def test_an_anchor_within_a_hundredth_of_the_border_is_not_used():
    side = 64
    anchors = anchor_logits(levels_of(torch.full((1, 4), 512.0), (512, 512), [(side, side)]))[0].view(side, side, 4)
    outside = anchors.isinf().all(dim=-1)
    assert outside[0].all()  # centre at 0.5 / 64 = 0.0078
    assert outside[:, -1].all()
    assert not outside[1:-1, 1:-1].any()


def test_the_box_of_a_token_without_anchor_is_the_unit_box_without_gradient():
    delta = torch.randn(1, 4, requires_grad=True)
    box = (delta + torch.full((1, 4), torch.inf)).sigmoid()
    box.sum().backward()
    assert box.tolist() == [[1.0] * 4]
    assert delta.grad is not None
    assert delta.grad.tolist() == [[0.0] * 4]


def test_the_best_class_ranks_a_token():
    logits = torch.tensor([[[0.0, 3.0], [5.0, -9.0], [1.0, 1.0]]])
    assert best_tokens(logits, 2).tolist() == [[1, 0]]
    assert best_tokens(logits, 9).tolist() == [[1, 0, 2]]
    assert take_rows(logits, torch.tensor([[2, 0]])).tolist() == [[[1.0, 1.0], [0.0, 3.0]]]


def test_a_box_is_refined_in_logits():
    moved = refine(torch.nn.Identity(), torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0.5, 0.25, 0.5, 0.0]))
    assert moved.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 0.25, 0.5, 0.001], abs=1e-5)


def test_tokens_without_an_anchor_share_one_vector_and_may_be_chosen():
    model = tiny_dino(queries=10**6).eval()
    with torch.no_grad():
        memory, _ = model.encode(tiny_batch([1, 1]).images)
        proposals = model.transformer.propose(memory)
    count = memory.tokens.shape[1]
    assert proposals.index.sort(dim=1).values.tolist() == [list(range(count))] * 2  # as many queries as tokens
    unused = anchor_logits(memory.levels)[..., 0].isinf()
    chosen_unused = unused.gather(1, proposals.index)
    assert chosen_unused.any()
    shared = proposals.states[chosen_unused]
    assert torch.allclose(shared, shared[:1].expand_as(shared), atol=1e-6)
    assert (proposals.boxes[chosen_unused] == 1).all()

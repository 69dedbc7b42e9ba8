"""What every loss must survive: no rows, only background, one class, enormous logits, half precision, resuming."""

import pytest
import torch
from loss_cases import COUNTS, LOSSES, columns, context_of, example

from cvpods_ext.modeling.losses.stateful import synchronize

MEMORIES = {"eqlv2": ["positive_gradients", "negative_gradients"], "seesaw": ["seen"]}


@pytest.fixture(params=LOSSES)
def make(request):
    return LOSSES[request.param]


def run(loss, logits, labels, num_classes):
    """Loss and its gradient; both must be finite."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels, context_of(labels, num_classes))
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    return value.detach(), logits.grad


def test_no_rows_give_zero_that_is_connected_to_the_graph(make):
    loss = make(COUNTS)
    value, _ = run(loss, torch.zeros(0, columns(loss, 6)), torch.zeros(0, dtype=torch.int64), 6)
    assert value == 0


@pytest.mark.parametrize("foreground", [False, True])
def test_only_background_and_only_foreground_are_finite_and_positive(make, foreground):
    loss = make(COUNTS)
    labels = torch.arange(8) % 6 if foreground else torch.full((8,), 6)
    value, gradient = run(loss, torch.randn(8, columns(loss, 6), generator=torch.Generator().manual_seed(0)), labels, 6)
    assert value >= 0
    asked_nothing = value == 0  # a federated loss may have no class to ask about
    assert asked_nothing or gradient.abs().sum() > 0


def test_a_single_class_works(make):
    loss = make(torch.tensor([5.0]))
    labels = torch.tensor([0, 1, 1, 0])
    logits = torch.randn(4, columns(loss, 1), generator=torch.Generator().manual_seed(0))
    run(loss, logits, labels, 1)
    scores = loss.scores(logits)
    assert scores.shape == (4, 1)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("size", [30.0, 1e4, 1e30])
def test_enormous_logits_give_no_nan(make, size):
    loss = make(COUNTS)
    for _ in range(3):  # statistics may carry trouble into the next step
        signs = torch.randint(0, 2, (16, columns(loss, 6)), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
        run(loss, signs * size, torch.arange(16) % 7, 6)
        scores = loss.scores(signs * size)
        assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_full_precision(make, dtype):
    loss, again = make(COUNTS), make(COUNTS)
    logits, labels, context = example(loss)
    half = logits.detach().to(dtype)
    torch.manual_seed(0)
    value = loss(half, labels, context)
    torch.manual_seed(0)
    assert value.dtype == torch.float32
    assert value == again(half.float(), labels, context)


def test_scores_are_probabilities_and_a_stronger_logit_scores_higher(make):
    loss = make(COUNTS)
    logits, _, _ = example(loss)
    scores = loss.scores(logits.detach().float())
    assert scores.shape == (12, 6)
    assert ((scores >= 0) & (scores <= 1)).all()
    raised = logits.detach().float()
    raised[:, 2] += 1
    assert (loss.scores(raised)[:, 2] > scores[:, 2]).all()


def test_a_step_against_the_gradient_lowers_the_loss(make):
    loss = make(COUNTS).eval()
    logits, labels, context = example(loss)
    torch.manual_seed(0)
    before = loss(logits, labels, context)
    before.backward()
    torch.manual_seed(0)
    assert loss(logits.detach() - 0.01 * logits.grad, labels, context) < before


@pytest.mark.parametrize("name", LOSSES)
def test_only_running_statistics_are_in_the_state_dict(name):
    loss = LOSSES[name](COUNTS)
    assert sorted(loss.state_dict()) == sorted(MEMORIES.get(name, []))


@pytest.mark.parametrize("name", MEMORIES)
def test_a_resumed_run_continues_with_the_same_statistics(name):
    loss = LOSSES[name](COUNTS)
    for seed in range(5):
        loss(*example(loss, seed=seed))
        synchronize([loss])
    resumed = LOSSES[name](COUNTS)
    fresh = LOSSES[name](COUNTS)
    resumed.load_state_dict(loss.state_dict())
    logits, labels, context = example(loss, seed=9)
    assert loss(logits, labels, context) == resumed(logits, labels, context)
    assert fresh(logits, labels, context) != loss(logits, labels, context)


@pytest.mark.parametrize("name", MEMORIES)
def test_evaluating_a_loss_leaves_its_statistics_alone(name):
    loss = LOSSES[name](COUNTS)
    loss(*example(loss))
    synchronize([loss])
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    assert any(value.any() for value in before.values())
    loss.eval()
    loss(*example(loss, seed=1))
    synchronize([loss])
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


def test_a_loss_can_be_built_while_the_model_is_on_the_meta_device(make):
    with torch.device("meta"):
        make(COUNTS)

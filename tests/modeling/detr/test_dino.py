import math

import pytest
import torch
from tiny_dino import NUM_CLASSES, tiny_batch, tiny_dino

from cvpods_ext.modeling.detr.losses import FederatedFocal


def total(losses):
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("objects", [[2, 1], [0, 3], [0, 0], [1, 90]])
def test_a_training_step_reaches_every_parameter(objects):
    model = tiny_dino().train()
    losses = model(tiny_batch(objects))
    assert all(name.startswith("loss_") and value.dim() == 0 for name, value in losses.items())
    assert len(losses) == 3 * (3 + 1 + 3)
    total(losses).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_names_of_losses_do_not_depend_on_the_objects():
    model = tiny_dino().train()
    assert list(model(tiny_batch([0, 0]))) == list(model(tiny_batch([3, 1])))


def test_the_same_seed_gives_the_same_losses_and_gradients_bit_for_bit():
    runs = []
    for seed in (1, 1, 2):
        model = tiny_dino().train()
        torch.manual_seed(seed)
        losses = model(tiny_batch([3, 2]))
        total(losses).backward()
        runs.append((total(losses), model.transformer.level_embeds.grad))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0])


def test_detections_are_in_pixels_of_the_original_picture_best_first():
    model = tiny_dino().eval()
    batch = tiny_batch([1, 0])
    for found, target in zip(model(batch), batch.targets, strict=True):
        height, width = target.original_size
        assert found.size == (height, width)
        assert 0 < len(found) <= 12 * NUM_CLASSES
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        assert found.labels.max() < NUM_CLASSES


def test_padding_does_not_change_what_is_found():
    model = tiny_dino().eval()
    small, large = tiny_batch([1, 1]).images
    alone = model.detect(tiny_batch([1]))[0]
    batch = tiny_batch([1, 1])
    together = model.detect(batch)[0]
    # positions and anchors follow the image, not the batch: what differs are cells at its edge
    assert small.shape != large.shape
    assert alone.scores[0].item() == pytest.approx(together.scores[0].item(), abs=0.05)


def test_an_untrained_model_gives_every_class_a_score_of_a_hundredth():
    scores = tiny_dino().eval().detect(tiny_batch([1]))[0].scores
    assert scores.log().mean().item() == pytest.approx(math.log(0.01), abs=1.0)


def test_the_last_layer_trains_the_box_head_of_the_one_before():
    """Look forward twice: the loss of layer l reaches layer l - 1 through the reference."""
    model = tiny_dino().train()
    model.zero_grad()
    losses = model(tiny_batch([2, 2]))
    losses["loss_bbox"].backward()
    reached = {name: p.grad is not None and bool(p.grad.abs().max() > 0) for name, p in model.named_parameters()}
    assert reached["bbox_embed.1.layers.2.weight"]
    assert reached["bbox_embed.2.layers.2.weight"]
    assert not reached["bbox_embed.0.layers.2.weight"]  # its box is detached before it gets there


def test_heads_have_both_published_names_and_are_one_tensor():
    state = tiny_dino().state_dict(keep_vars=True)
    for name in ("class_embed.1.weight", "bbox_embed.3.layers.2.bias"):
        assert state[name] is state[f"transformer.decoder.{name}"]


def test_heads_start_equal_and_leave_references_where_they_are():
    model = tiny_dino()
    first, last = model.class_embed[0], model.class_embed[3]
    assert torch.equal(first.weight, last.weight)
    assert first.weight is not last.weight
    states = torch.randn(1, 3, 32)
    assert torch.equal(model.bbox_embed[2](states), torch.zeros(1, 3, 4))


def test_another_classification_loss_takes_its_place():
    torch.manual_seed(0)
    counts = torch.tensor([100.0, 50, 20, 10, 5, 2, 1])
    model = tiny_dino(loss=FederatedFocal(counts, num_sampled=3)).train()
    batch = tiny_batch([1, 1])
    federated = model(batch)
    everything = tiny_dino().train()(batch)
    assert 0 < federated["loss_class"] < everything["loss_class"]


def test_a_few_steps_lower_the_loss():
    model = tiny_dino().train()
    batch = tiny_batch([2, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = []
    for step in range(8):
        torch.manual_seed(step)
        loss = total(model(batch))
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(values[-2:]) < 0.8 * sum(values[:2])


def test_mixed_precision_keeps_boxes_and_losses_in_full():
    model = tiny_dino().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(tiny_batch([2, 1]))
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    total(losses).backward()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.eval().detect(tiny_batch([1]))[0]
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_two_batches_at_once_have_the_gradients_of_both():
    """Nothing of a forward pass stays in the model: parts of an accumulated batch do not disturb each other."""
    model = tiny_dino().train()
    gradients = []
    for order in ((0, 1), (1, 0)):
        model.zero_grad()
        for part in order:
            torch.manual_seed(part)
            total(model(tiny_batch([2, 1], seed=part))).backward()
        gradients.append(model.transformer.level_embeds.grad)
    assert torch.allclose(*gradients, atol=1e-5)

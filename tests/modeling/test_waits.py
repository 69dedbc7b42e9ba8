"""Where a training step waits for the device: once for suppression, once for the RoIs, and nowhere unnoticed.

What remains and why is told in docs/speed.md; who adds a wait finds it here.
"""

import copy

import pytest
import torch
from simulated_gpu import NUMBER, SHAPE, TO_GPU, TO_HOST, SimulatedGPU, upload
from test_rcnn import TWO, batch, build

from cvpods_ext.modeling.detection.build import (
    cascade_mask_rcnn_fpn,
    cascade_rcnn_fpn,
    faster_rcnn_fpn,
    mask_rcnn_fpn,
)
from cvpods_ext.modeling.layers import to_device

SUPPRESSION = (SHAPE, "modeling/detection/nms.py:keep_in_one_call")
ROIS = ("the stream is waited for", "modeling/layers.py:to_host")
EMPTY_BOXES = (SHAPE, "modeling/detection/cascade.py:losses")
WAITS = {
    faster_rcnn_fpn: [SUPPRESSION, ROIS],
    mask_rcnn_fpn: [SUPPRESSION, ROIS],
    cascade_rcnn_fpn: [SUPPRESSION, ROIS, EMPTY_BOXES, EMPTY_BOXES],
    cascade_mask_rcnn_fpn: [SUPPRESSION, ROIS, EMPTY_BOXES, EMPTY_BOXES],
}


def uploaded(data):
    data = copy.deepcopy(data)
    data.images = [upload(image) for image in data.images]
    for target in data.targets:
        target.boxes, target.labels = upload(target.boxes), upload(target.labels)
    return data


@pytest.mark.parametrize("assemble", WAITS)
def test_a_training_step_waits_only_where_it_must_and_counts_the_same(assemble):
    model, data = build(assemble).train(), batch(*TWO)
    expected = model(data)
    torch.stack(list(expected.values())).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    with SimulatedGPU() as gpu:
        model, data = upload(copy.deepcopy(model)), uploaded(data)
        losses = model(data)
        torch.stack(list(losses.values())).sum().backward()
    assert gpu.waits == WAITS[assemble]
    for name, loss in losses.items():
        torch.testing.assert_close(loss.held, expected[name].detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.held, gradients[name])


def test_bitmap_masks_wait_no_more_than_polygons():
    with SimulatedGPU() as gpu:
        upload(build().train())(uploaded(batch(*TWO, masks="bitmap")))
    assert gpu.waits == WAITS[mask_rcnn_fpn]


@pytest.mark.parametrize(
    ("reason", "act"),
    [
        (NUMBER, lambda x: x.sum().item()),
        (NUMBER, lambda x: int(x.max())),
        (NUMBER, lambda x: 1 if (x > 2).any() else 0),
        (TO_HOST, lambda x: x.tolist()),
        (NUMBER, lambda x: torch.equal(x, x + 1)),
        (SHAPE, lambda x: x.nonzero()),
        (SHAPE, lambda x: x[x > 0]),
        (SHAPE, lambda x: torch.where(x > 0)),
        (SHAPE, lambda x: x.unique()),
        (SHAPE, lambda x: torch.repeat_interleave(x[0].long())),
        (TO_HOST, lambda x: x.cpu()),
        (TO_HOST, lambda x: x.to("cpu", torch.float64)),
        (TO_GPU, lambda x: torch.tensor([1.0, 2]).to(x.device)),
        (TO_GPU, lambda x: x + torch.tensor([1.0, 2], device=x.device)),
        (TO_GPU, lambda x: x + x.new_tensor([1.0, 2])),
        (TO_GPU, lambda x: x[torch.tensor([1, 0])]),
    ],
)
def test_what_waits_is_noticed(reason, act):
    with SimulatedGPU() as gpu:
        act(upload(torch.tensor([[1.0, 2], [3, 4]])))
    assert [wait for wait, _ in gpu.waits] == [reason]


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.gather(1, x.argsort(dim=1)),
        lambda x: x[x.long().clamp(max=1)],
        lambda x: torch.where(x > 2, x, 0.0).sum(),
        lambda x: torch.zeros(2, device=x.device) + torch.rand(2, device=x.device),
        lambda x: torch.repeat_interleave(x[0].long(), output_size=3),
        lambda x: x * to_device(torch.tensor([1.0, 2]), x.device),
        lambda x: x.masked_fill(x > 1, 0.0).topk(1),
    ],
)
def test_what_does_not_wait_is_not_reported(act):
    with SimulatedGPU() as gpu:
        act(upload(torch.tensor([[1.0, 2], [3, 4]])))
    assert gpu.waits == []


def test_tensors_of_both_sides_do_not_meet():
    with SimulatedGPU(), pytest.raises(AssertionError, match="on the host and on the GPU"):
        upload(torch.ones(2)) + torch.ones(2)


def test_a_wait_is_told_with_its_place(monkeypatch):
    model = build(faster_rcnn_fpn).train()
    with SimulatedGPU() as gpu:
        upload(model)
        loss = model.roi_heads.classification_loss
        plain = loss.forward
        loss.forward = lambda logits, *rest: plain(logits, *rest) * (1 if logits.isfinite().all() else 0)
        model(uploaded(batch(*TWO)))
    assert gpu.waits == [*WAITS[faster_rcnn_fpn], (NUMBER, "modeling/detection/box_stage.py:train")]


def test_after_it_all_is_as_before():
    before = torch.cuda._lazy_init, torch.cuda.current_stream, torch._C._nn.pad_sequence
    with SimulatedGPU():
        assert torch.cuda._lazy_init is not before[0]
    assert (torch.cuda._lazy_init, torch.cuda.current_stream, torch._C._nn.pad_sequence) == before

"""Batch norm over several processes equals batch norm over all of their images."""

import socket

import pytest
import torch
import torch.distributed as torch_dist
import torch.multiprocessing as multiprocessing
from torch import nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.segmentation.layers import SyncBatchNorm2d


def images():
    return torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1


def layer():
    norm = SyncBatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    return norm.train()


def loss(out, rank=0):
    """Weighs every image differently, so that gradients do not vanish."""
    weights = torch.arange(1.0, 5.0)[rank * len(out) : (rank + 1) * len(out)]
    return (out.square() * weights[:, None, None, None]).sum()


def share(rank, port, results):
    torch.set_num_threads(1)
    torch_dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    norm, mine = layer(), images()[2 * rank : 2 * rank + 2].requires_grad_()
    out = norm(mine)
    loss(out, rank).backward()
    results[rank] = {
        "out": out.detach(),
        "input": mine.grad,
        "weight": norm.weight.grad,
        "mean": norm.running_mean,
        "variance": norm.running_var,
        "count": norm.num_batches_tracked,
    }
    torch_dist.barrier()
    torch_dist.destroy_process_group()


def test_two_processes_normalise_by_the_statistics_of_both():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(share, (port, results), nprocs=2)
        first, second = results[0], results[1]
    norm, everything = nn.BatchNorm2d(3).train(), images().requires_grad_()
    norm.load_state_dict(layer().state_dict())
    out = norm(everything)
    loss(out).backward()
    torch.testing.assert_close(torch.cat((first["out"], second["out"])), out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat((first["input"], second["input"])), everything.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first["weight"] + second["weight"], norm.weight.grad, rtol=1e-4, atol=1e-4)
    for each in (first, second):
        torch.testing.assert_close(each["mean"], norm.running_mean)
        torch.testing.assert_close(each["variance"], norm.running_var)
        assert each["count"] == 1


def test_one_process_is_plain_batch_norm():
    norm, plain = layer(), nn.BatchNorm2d(3).train()
    plain.load_state_dict(norm.state_dict())
    assert torch.equal(norm(images()), plain(images()))
    assert torch.equal(norm.running_var, plain.running_var)


def test_one_value_a_channel_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match="images_per_device=2"):
        SyncBatchNorm2d(3).train()(torch.randn(1, 3, 1, 1))
    assert SyncBatchNorm2d(3).eval()(torch.randn(1, 3, 1, 1)).shape == (1, 3, 1, 1)

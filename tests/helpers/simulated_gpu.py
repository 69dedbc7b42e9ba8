"""A device that is not there: processor tensors that claim to be on a GPU, and a list of what would wait for it.

A GPU works behind the host; the host loses that lead wherever it asks for a number, a shape that depends on numbers, or
a copy that blocks. `SimulatedGPU` runs a program on the processor along the paths it takes on a GPU (`is_cuda` is
true, `.cpu()` copies) and records each such place, in the forward and in the backward pass. It relies on a list of the
operators that wait, `BLOCKING`; on a machine with a GPU `torch.cuda.set_sync_debug_mode` reports them.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

PACKAGE = Path(__file__).resolve().parents[2] / "cvpods_ext"
GPU, HOST = torch.device("cuda", 0), torch.device("cpu")
NUMBER, SHAPE = "a number is read", "the shape depends on numbers"
TO_HOST, TO_GPU = "a copy to the host", "a copy to the GPU"
BLOCKING = {
    "aten::_local_scalar_dense": NUMBER,
    "aten::equal": NUMBER,
    "aten::is_nonzero": NUMBER,
    "aten::multinomial": NUMBER,
    "aten::nonzero": SHAPE,
    "aten::masked_select": SHAPE,
    "aten::_unique2": SHAPE,
    "aten::unique_dim": SHAPE,
    "aten::unique_consecutive": SHAPE,
    "aten::bincount": SHAPE,
    "torchvision::nms": SHAPE,
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
MIXED = INDEXING | {"aten::copy_"}  # may take tensors of both sides


class OnGPU(torch.Tensor):
    """Numbers `held` on the processor, reported as being on the GPU."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            requires_grad=held.requires_grad,
        )

    def __init__(self, held):
        self.held = held.detach()

    # Only Python sees it: torch's own code would guard a device that does not exist.
    is_cuda = True
    device = GPU

    def to(self, *args, **kwargs):
        if "cpu" in map(str, args):
            dtypes = [value for value in args if isinstance(value, torch.dtype)] or [self.dtype]
            return torch.ops.aten._to_copy(self, device=HOST, dtype=dtypes[0], **kwargs)
        return super().to(*args, **kwargs)

    def cpu(self):
        return self.to("cpu")

    def tolist(self):
        return torch.ops.aten._to_copy(self, device=HOST).tolist()

    def new_tensor(self, data, **kwargs):
        return torch.tensor(data, device=GPU, **{"dtype": self.dtype} | kwargs)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on the simulated GPU outside of SimulatedGPU()")


class _Stream:
    def __init__(self, gpu):
        self.synchronize = lambda: gpu.waits.append(("the stream is waited for", _place()))


def _pad_sequence(sequences, batch_first, padding_value, side):
    """torch's own allocates where it believes the tensors to be."""
    assert batch_first
    assert side == "right"
    longest = max(len(one) for one in sequences)
    out = sequences[0].new_full((len(sequences), longest, *sequences[0].shape[1:]), padding_value)
    for row, one in zip(out, sequences, strict=True):
        row[: len(one)].copy_(one)
    return out


def _tensor(data, *, device=None, plain=torch.tensor, **kwargs):
    """torch's own copies unseen."""
    made = plain(data, **kwargs)
    return made if device is None else made.to(device)


def _sides(*values):
    """Whether there is a tensor on the GPU among nested values, and one on the host that is no scalar."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
    on_gpu = [isinstance(tensor, OnGPU) for tensor in tensors]
    return any(on_gpu), any(not on and tensor.dim() for tensor, on in zip(tensors, on_gpu, strict=True))


def _held(value):
    return value.held if isinstance(value, OnGPU) else value


def _reason(name, args, kwargs, had, goes):
    """Why the host waits for this operator, or None; `had` and `goes`: whether input and output are on the GPU."""
    if name == "aten::_to_copy" and had != goes and not kwargs.get("non_blocking"):
        return TO_GPU if goes else TO_HOST
    if name == "aten::copy_" and not (len(args) > 2 and args[2]):
        target, source = (isinstance(tensor, OnGPU) for tensor in args[:2])
        scalar = not source and args[1].dim() == 0
        return None if target == source or scalar else TO_GPU if target else TO_HOST
    if name in INDEXING:
        indices = [index for index in args[1] if index is not None]
        if any(isinstance(index, OnGPU) and index.dtype in (torch.bool, torch.uint8) for index in indices):
            return SHAPE
        return TO_GPU if had and not all(isinstance(index, OnGPU) for index in indices) else None
    if name == "aten::repeat_interleave" and had:
        return None if kwargs.get("output_size") is not None else SHAPE
    return BLOCKING.get(name) if had else None


class SimulatedGPU(TorchDispatchMode):
    """Within it, tensors and modules that `upload` returned are on a GPU; `waits` lists (reason, file:function)."""

    def __init__(self):
        super().__init__()
        self.waits: list[tuple[str, str]] = []
        self._patches: list[tuple[object, str, object]] = []

    @classmethod
    def _should_skip_dynamo(cls):  # torch's compiler is not at work here and takes seconds to import
        return False

    def __enter__(self):
        self._patch(torch.cuda, "_lazy_init", lambda: None)  # there is nothing to initialise
        self._patch(torch.cuda, "current_stream", lambda device: _Stream(self))
        self._patch(torch._C._nn, "pad_sequence", _pad_sequence)
        self._patch(torch, "tensor", _tensor)
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        for holder, name, original in self._patches:
            setattr(holder, name, original)

    def _patch(self, holder, name, value):
        self._patches.append((holder, name, getattr(holder, name)))
        setattr(holder, name, value)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func._schema.name
        if name == "aten::_pin_memory":
            return args[0].clone()
        had, had_host = _sides(args, kwargs)
        assert not (had and had_host) or name in MIXED, f"{name} of tensors on the host and on the GPU"
        wanted = kwargs.get("device")
        # What torch's own code makes like a tensor is where that is, although it believes it to be on the host.
        like = wanted is None or (had and name.startswith("aten::new_"))
        goes = had if like else torch.device(wanted).type == "cuda"
        if reason := _reason(name, args, kwargs, had, goes):
            self.waits.append((reason, _place()))
        if wanted is not None:
            kwargs["device"] = HOST
        out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if name == "aten::_to_copy" and had != goes:
            out = out.clone()
        if not goes:
            return out
        out = tree_map(lambda value: OnGPU(value) if isinstance(value, torch.Tensor) else value, out)
        return return_and_correct_aliasing(func, args, kwargs, out)


def _place():
    """The innermost function of the package that is at work."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE)}:{frame.name}"
    return "backward or outside"


def upload(value):
    """A tensor, or in place all parameters and buffers of a module, on the simulated GPU."""
    if isinstance(value, torch.Tensor):
        return OnGPU(value)
    for module in value.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(OnGPU(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnGPU(buffer)
    return value

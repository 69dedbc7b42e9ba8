"""Everything that the next step depends on besides config and iteration, out of a run and back into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvpods_ext.engine.distributed.parallel import full_tensor, shard_like
from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.errors import WeightsError
from cvpods_ext.runtime import dist


@dataclass(frozen=True)
class TrainingState:
    """Model (with the memories of its losses), optimizer, loss scaler and average of the weights.

    Position in the data and all random numbers are functions of seed and iteration, and need no storing.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None

    def capture(self, iteration: int) -> dict[str, Any]:
        """A copy on the CPU of the state after `iteration` steps, the same for any number of processes.

        Every process must call it, since shards are gathered; only rank 0 gets the values.
        """
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state = {**state, "scaler": self.scaler.state_dict(), "iteration": iteration}
        if self.average is not None:
            state["ema_state"] = self.average.tensors
        return _on_cpu(state)

    def checkpoint_bytes(self) -> int:
        """About how large a checkpoint is once the optimizer has moments."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        adam = not isinstance(self.optimizer, torch.optim.SGD)
        moments = 2 if adam else int(any(group["momentum"] for group in self.optimizer.param_groups))
        average = () if self.average is None else self.average.tensors.values()
        tensors = [*self.model.state_dict().values(), *average, *(moments * trained)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def weights(self, iteration: int) -> dict[str, Any]:
        """What testing and a second stage need; like `capture`."""
        average = {} if self.average is None else {"ema_state": self.average.tensors}
        return _on_cpu({"model": self.model.state_dict(), "iteration": iteration, **average})

    def restore(self, state: Mapping[str, Any]) -> int:
        """Put everything back as it was; returns the number of steps already taken.

        Raises WeightsError if the checkpoint is of another model or another optimizer.
        """
        own: dict[str, Tensor] = self.model.state_dict()
        _require_equal_shapes(own, state["model"])
        try:
            model = {name: shard_like(own[name], v) if name in own else v for name, v in state["model"].items()}
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(self._optimizer_state(state["optimizer"]))
        except (RuntimeError, ValueError, KeyError) as error:
            raise WeightsError(
                f"the checkpoint does not fit this experiment ({str(error).splitlines()[0]}). Resume with the net.py "
                "and the schedule.optimizer that the run was started with, or start over without --resume"
            ) from None
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            if "ema_state" not in state:
                raise WeightsError("the checkpoint holds no average of the weights; resume with schedule.ema_decay=0")
            tensors = self.average.tensors
            saved = state["ema_state"].items()
            self.average.load({n: shard_like(tensors[n], v) if n in tensors else v for n, v in saved})
        return state["iteration"]

    def _optimizer_state(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Saved moments, laid out as the parameters that they belong to."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        laid_out = {
            index: {k: shard_like(parameters[index], v) if isinstance(v, Tensor) else v for k, v in moments.items()}
            for index, moments in saved["state"].items()
        }
        return {"state": laid_out, "param_groups": saved["param_groups"]}


def _require_equal_shapes(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """WeightsError if tensors have another shape than in the checkpoint, as after a category was added to the data."""
    kinds = [n for n, value in saved.items() if n in own and own[n].is_floating_point() != value.is_floating_point()]
    if kinds:
        raise WeightsError(
            f"the checkpoint holds {kinds[0]} as {saved[kinds[0]].dtype} and this experiment as {own[kinds[0]].dtype}. "
            "Another program wrote it: give it with --weights FILE instead of --resume"
        )
    names = [name for name, value in saved.items() if name in own and own[name].shape != value.shape]
    if not names:
        return
    there, here = list(saved[names[0]].shape), list(own[names[0]].shape)
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    raise WeightsError(
        f"the checkpoint does not fit this experiment: {names[0]} has shape {there} there and {here} here{more}. Where "
        "the data have other categories than when the run began, carry the weights over by "
        "`pods_weights convert CHECKPOINT new.safetensors --from-categories OLD.json --to-categories NEW.json`, start "
        "with model.init=new.safetensors; otherwise resume with the net.py that the run was started with"
    )


def _on_cpu(value: Any) -> Any:
    """Copy tensors to the CPU within nested dicts and lists; empty on ranks other than 0, which only take part."""
    if isinstance(value, Tensor):
        full = full_tensor(value.detach())
        return full.to("cpu", copy=True) if dist.is_main() else full.new_empty(0)
    if isinstance(value, Mapping):
        copy = {key: _on_cpu(item) for key, item in value.items()}
        return _with_versions(copy, value)
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value


def _with_versions(copy: Mapping[str, Any], original: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep the layer versions that torch hangs on a state dict; a reader must know them."""
    metadata = getattr(original, "_metadata", None)
    if metadata is None:
        return copy
    ordered = type(original)(copy)  # type: ignore[call-arg]
    ordered._metadata = metadata  # type: ignore[attr-defined]
    return ordered

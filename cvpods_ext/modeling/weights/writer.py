"""Write weights in the one format that can hold nothing but tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.keys import translate
from cvpods_ext.modeling.weights.reader import Checkpoint
from cvpods_ext.runtime.files import atomic_path


def write_safetensors(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and text metadata atomically; tensors that share memory are written one by one."""
    try:
        with atomic_path(path) as temporary:
            save_file(
                {name: value.detach().cpu().contiguous().clone() for name, value in state.items()},
                temporary,
                dict(metadata),
            )
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error}. Make room, or choose another place") from None


def converted(checkpoint: Checkpoint, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State dict under our names, and the metadata that a later load needs: family, layer versions, source."""
    state, kind = translate(checkpoint.state)
    metadata = {"format": "pt", "family": checkpoint.metadata.get("family", kind), "source": source}
    if versions := checkpoint.metadata.get("versions"):
        metadata["versions"] = json.dumps(versions)
    return state, metadata

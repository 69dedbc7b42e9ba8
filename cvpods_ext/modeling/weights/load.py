"""Put the tensors of a file into a model and account for every one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cvpods_ext.errors import ConfigError, WeightsError
from cvpods_ext.modeling.backbones.eva02 import RotaryTable
from cvpods_ext.modeling.weights.keys import EXPECTATIONS, match_suffixes, translate
from cvpods_ext.modeling.weights.reader import Checkpoint
from cvpods_ext.modeling.weights.report import LoadReport, Mismatch, grouped
from cvpods_ext.modeling.weights.resample import resample
from cvpods_ext.modeling.weights.surgery import class_count_note

# Computed from the config, or meaningless without training: neither their absence nor their presence is news.
_SILENT = re.compile(r"(^|\.)(cell_anchors\.\d+|pixel_mean|pixel_std|num_batches_tracked|rope\w*\.freqs_(cos|sin))$")

_ROTARY_ROUNDING = 2e-3  # of a table kept in 16 bits


def load_into(
    model: nn.Module, checkpoint: Checkpoint | Mapping[str, Tensor], source: str, skip: Sequence[str] = ()
) -> LoadReport:
    """Load what fits into `model`, whatever program wrote it, and report what did not.

    Names are translated by family, then matched exactly or by their longest suffix. A tensor of another shape is left
    out; shapes that differ only in dimensions of size 1 are reshaped, and the patch kernels and position tables of
    transformers resampled. Tensors of the model whose names a regular expression of `skip` finds keep their values.
    `source` is named in reports and errors.
    WeightsError, with the model unchanged, if nothing fits, a name is ambiguous, or weights are whole numbers.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(dict(checkpoint), {}, "torch")
    versions = {name.removeprefix("module."): v for name, v in checkpoint.metadata.get("versions", {}).items()}
    try:
        ours = {name: value.shape for name, value in model.state_dict().items()}
        translated, kind = translate(checkpoint.state, ours.keys())
        kind = checkpoint.metadata.get("family", kind)  # a converted file remembers where it came from
        theirs = {name: value.shape for name, value in translated.items()}
        matches = match_suffixes(ours, theirs, _same_but_for_ones)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    used = set(matches.values())
    for name in _found(skip, ours):
        matches.pop(name, None)
    fitting, reshaped, skipped = _split_by_shape(matches, translated, ours)
    if not fitting:
        raise WeightsError(_nothing_fits(source, translated, ours, skipped))
    expects = EXPECTATIONS.get(kind)
    notes = [f"{source} comes from the {kind} family: {expects}"] if expects else []
    notes += _kind_notes(source, model, fitting)
    notes += _stride_note(model, kind)
    notes += _fit_frozen_norms(model, fitting, versions)
    notes += class_count_note(skipped) + _rotary_note(model, fitting)
    model.load_state_dict(fitting, strict=False)
    computed = {name for name, _ in model.named_buffers()} - ours.keys()  # averages hold these as well
    return LoadReport(
        source=source,
        loaded=[name for name in ours if name in fitting],
        missing=[name for name in ours if name not in matches and name not in fitting and not _SILENT.search(name)],
        unexpected=[name for name in translated if name not in used | computed and not _SILENT.search(name)],
        reshaped=reshaped,
        skipped=[mismatch for mismatch in skipped if not _SILENT.search(mismatch.name)],
        recomputed=[mismatch.name for mismatch in skipped if _SILENT.search(mismatch.name)],
        notes=notes,
    )


def _found(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Names that one of the patterns finds; a pattern that finds none is a mistake and a ConfigError."""
    names = list(names)
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise ConfigError(f"model.init_skip={pattern!r} matches no tensor of the model, such as {names[0]}")
    return [name for name in names if any(re.search(pattern, name) for pattern in patterns)]


def _same_but_for_ones(ours: torch.Size, theirs: torch.Size) -> bool:
    """(C, D) and (C, D, 1, 1) hold the same values in the same order, and so do () and (1,)."""
    return [size for size in ours if size != 1] == [size for size in theirs if size != 1]


def _split_by_shape(
    matches: Mapping[str, str], state: Mapping[str, Tensor], ours: Mapping[str, torch.Size]
) -> tuple[dict[str, Tensor], list[str], list[Mismatch]]:
    """What can be loaded under our names, which of it was reshaped, and what has another shape."""
    fitting: dict[str, Tensor] = {}
    reshaped: list[str] = []
    skipped: list[Mismatch] = []
    for name, their_name in matches.items():
        value, shape = state[their_name], ours[name]
        if _same_but_for_ones(shape, value.shape):
            fitting[name] = value.reshape(shape)
            if value.shape != shape:
                reshaped.append(name)
        elif (resampled := resample(name, value, shape)) is not None:
            fitting[name] = resampled
            reshaped.append(name)
        else:
            skipped.append(Mismatch(name, tuple(value.shape), tuple(shape)))
    return fitting, reshaped, skipped


def _kind_notes(source: str, model: nn.Module, fitting: Mapping[str, Tensor]) -> list[str]:
    """Name buffers that the file holds as whole numbers and the model as fractions; parameters are a WeightsError.

    Truth values and complex numbers count as well. Where the model has whole numbers, as in counters, there is no news.
    """
    target = model.state_dict()
    whole = {n: v for n, v in fitting.items() if target[n].is_floating_point() and not v.is_floating_point()}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if refused := [name for name in whole if name in parameters]:
        kinds = sorted({str(whole[name].dtype).removeprefix("torch.") for name in refused})
        raise WeightsError(
            f"{source} holds {len(refused)} weights as {' and '.join(kinds)} where the model has fractions: "
            f"{', '.join(grouped(refused)[:4])}. A quantised file cannot be loaded without its scales; give the file "
            "from before it was quantised, or convert the tensors to float32 in the program that wrote it"
        )
    return [f"whole numbers in the file, taken as they are: {', '.join(grouped(whole))}"] if whole else []


def _nothing_fits(
    source: str, state: Mapping[str, Tensor], ours: Mapping[str, torch.Size], skipped: list[Mismatch]
) -> str:
    """The message for a file of another architecture."""
    if skipped:
        why = f"{len(skipped)} names agree, but no shape does, for example {skipped[0]}"
    else:
        why = f"the file has {', '.join(grouped(state)[:4])}; the model expects {', '.join(grouped(ours)[:4])}"
    return (
        f"no tensor of {source} fits the model: {why}. It belongs to another architecture; "
        f"see its names with `pods_weights inspect {source}`"
    )


def _rotary_note(model: nn.Module, fitting: Mapping[str, Tensor]) -> list[str]:
    """Say that a file was trained with rotary tables of another formula; its weights belong to its tables."""
    off = 0.0
    for module in {each for each in model.modules() if isinstance(each, RotaryTable)}:
        names = [name for name, other in model.named_modules(remove_duplicate=False) if other is module]
        for kind, own in module.named_buffers():
            found = [fitting[f"{name}.{kind}"] for name in names if f"{name}.{kind}" in fitting]
            off = max([off, *((one.float() - own).abs().max().item() for one in found if not own.is_meta)])
    if off < _ROTARY_ROUNDING:
        return []
    return [
        f"WARNING: the rotary tables of the file differ from those of EVA-02's authors by up to {off:.2g} (mmpretrain "
        "computes others). They are taken over, since the weights were trained with them; for a file that was only "
        "converted by mmpretrain, leave them out by model.init_skip=('freqs_(cos|sin)$',)"
    ]


# ---- frozen batch norms ---------------------------------------------------------------------------------------------


def frozen_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Batch norms whose affine values are buffers, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if "running_var" in module._buffers and "weight" in module._buffers
    }


def _fit_frozen_norms(model: nn.Module, fitting: dict[str, Tensor], versions: Mapping[str, int | None]) -> list[str]:
    """Give frozen norms the statistics that the program of the file would have used.

    Detectron's first files fold the statistics into the affine values: mean 0 and variance 1 - eps make the layer
    exactly that affine map. State dicts of frozen norms before version 3 stored the variance plus eps.
    """
    folded, shifted = 0, 0
    for name, module in frozen_norms(model).items():
        eps = float(getattr(module, "eps", 1e-5))
        variance = f"{name}.running_var"
        if f"{name}.weight" in fitting and variance not in fitting:
            weight = fitting[f"{name}.weight"]
            fitting[variance] = torch.full_like(weight, 1.0 - eps)
            fitting[f"{name}.running_mean"] = torch.zeros_like(weight)
            folded += 1
        version = versions.get(name)
        if variance in fitting and version is not None and version < 3:
            fitting[variance] = fitting[variance] - eps
            shifted += 1
    notes = []
    if folded:
        notes.append(
            f"{folded} frozen batch norms have no statistics in the file: mean 0 and variance 1 - eps are used"
        )
    if shifted:
        notes.append(f"{shifted} frozen batch norms were saved before state version 3: eps is taken off their variance")
    return notes


def _stride_note(model: nn.Module, kind: str) -> list[str]:
    """Warn aloud when the bottlenecks stride elsewhere than where the weights were trained: it costs several AP."""
    if any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules()):
        return []  # every ResNeXt strides in its grouped 3x3 convolution, Caffe2's too
    expected = {"caffe2": "conv1", "resnet": "conv2"}.get(kind)
    for name, module in model.named_modules():
        found = re.search(r"(^|\.)res3\.0\.(conv[12])$", name)
        if expected and found and tuple(getattr(module, "stride", ())) == (2, 2) and found[2] != expected:
            here, there = ("1x1", "3x3") if found[2] == "conv1" else ("3x3", "1x1")
            return [
                f"WARNING: this model strides in its {here} convolutions, the weights were trained with the stride in "
                f"the {there}. They load, but expect several AP less; set stride_in_1x1={there == '1x1'} in net.py"
            ]
    return []

"""Reading files: every format round-trips, nothing runs code, broken files say what to do."""

import argparse
import collections
import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file
from shared import shared

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.budget import Budget
from cvpods_ext.modeling.weights.metadata import plain
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.modeling.weights.restricted import RestrictedUnpickler

STATE = {
    "stem.conv1.weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "steps": torch.tensor(7),
    "empty": torch.zeros(0, 4),
}


def assert_same_state(got, expected):
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        assert torch.equal(got[name], value), name


class Attack:
    """Creates a file when it is unpickled by an unrestricted reader."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_files_of_both_formats_give_state_and_metadata(tmp_path, zipped):
    path = tmp_path / "model.pth"
    content = {"model": collections.OrderedDict(STATE), "iteration": 90_000, "scheduler": {"best": np.float64(0.25)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    checkpoint = read(path)
    assert checkpoint.format == "torch"
    assert_same_state(checkpoint.state, STATE)
    assert checkpoint.metadata == {"iteration": 90_000, "scheduler": {"best": 0.25}}


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_a_state_dict_is_found_with_and_without_a_wrapper(tmp_path, wrapper):
    path = tmp_path / "any.name"
    torch.save({wrapper: STATE} if wrapper else STATE, path)
    assert_same_state(read(path).state, STATE)


def test_layer_versions_of_a_state_dict_are_kept(tmp_path):
    path = tmp_path / "bn.pth"
    torch.save({"model": torch.nn.Sequential(torch.nn.BatchNorm2d(2)).state_dict()}, path)
    assert read(path).metadata["versions"]["0"] == 2


def test_averaged_weights_are_kept_apart(tmp_path):
    path = tmp_path / "eva.pth"
    torch.save({"model": STATE, "ema_state": {"half": torch.ones(2)}}, path)
    checkpoint = read(path)
    assert_same_state(checkpoint.ema, {"half": torch.ones(2)})
    assert "ema_state" not in checkpoint.metadata


def test_arrays_and_namespaces_inside_torch_files_are_plain_data(tmp_path):
    path = tmp_path / "pretrained.pth"
    torch.save(
        {"model": {"weight": np.arange(6.0).reshape(2, 3), "none": np.zeros(0)}, "args": argparse.Namespace(lr=0.1)},
        path,
    )
    checkpoint = read(path)
    weight = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    assert_same_state(checkpoint.state, {"weight": weight, "none": torch.zeros(0, dtype=torch.float64)})
    assert checkpoint.metadata["args"] == {"lr": 0.1}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrapper", ["model", "blobs", None])
def test_pickles_of_every_protocol_and_wrapper_are_read(tmp_path, protocol, wrapper):
    arrays = {"conv1_w": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32), "n": np.array([3])}
    content = {wrapper: arrays, "__author__": "somebody", "matching_heuristics": True} if wrapper else arrays
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    checkpoint = read(path)
    assert checkpoint.format == "pickle"
    assert_same_state(checkpoint.state, {name: torch.from_numpy(value) for name, value in arrays.items()})
    if wrapper:
        assert checkpoint.metadata == {"__author__": "somebody", "matching_heuristics": True}


def test_a_pickle_of_python_2_with_bytes_above_127_is_read(tmp_path):
    # What Python 2 wrote: raw array data as a byte string (opcode U), module names of numpy 1.
    raw = np.array([-1.5, 3e8], dtype="<f4").tobytes()
    assert max(raw) > 127
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01(K\x02tcnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tb"
    )
    path = tmp_path / "py2.pkl"
    path.write_bytes(b"\x80\x02}U\x05blobs}U\x07conv1_w" + array + b"ss.")
    assert read(path).state["conv1_w"].tolist() == [-1.5, 3e8]


def test_plain_pickles_of_tensors_are_read(tmp_path):
    path = tmp_path / "tensors.pkl"
    state = {"weight": torch.arange(6.0).reshape(2, 3).t(), "parameter": torch.nn.Parameter(torch.ones(2))}
    path.write_bytes(pickle.dumps({"model": state}))
    assert_same_state(read(path).state, {"weight": state["weight"], "parameter": torch.ones(2)})


def test_safetensors_give_state_and_metadata(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(dict(sorted(STATE.items())), path, metadata={"iteration": "5", "versions": '{"norm": 2}'})
    checkpoint = read(path)
    assert checkpoint.format == "safetensors"
    assert_same_state(dict(sorted(checkpoint.state.items())), dict(sorted(STATE.items())))
    assert checkpoint.metadata == {"iteration": "5", "versions": {"norm": 2}}


def test_the_content_decides_the_format_not_the_name(tmp_path):
    path = tmp_path / "really_a_torch_file.pkl"
    torch.save(STATE, path)
    assert read(path).format == "torch"


def test_the_recorded_reference_weights_are_read():
    checkpoint = read(shared("golden/d2_tiny_mask_rcnn/weights.safetensors"))
    assert checkpoint.state["roi_heads.box_predictor.cls_score.weight"].shape == (13, 64)


@settings(max_examples=40, deadline=None)
@given(
    array=hnp.arrays(
        dtype=hnp.floating_dtypes(sizes=(16, 32, 64)) | hnp.integer_dtypes() | hnp.boolean_dtypes(),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    protocol=st.integers(0, 5),
    fortran=st.booleans(),
)
def test_any_numeric_array_survives_the_restricted_unpickler(array, protocol, fortran, tmp_path_factory):
    array = np.asfortranarray(array) if fortran else array
    path = tmp_path_factory.mktemp("pickles") / "array.pkl"
    path.write_bytes(pickle.dumps([array, array[..., :1].copy() if array.ndim else array], protocol=protocol))
    with open(path, "rb") as file:
        got = plain(RestrictedUnpickler(file, Budget(path.stat().st_size)).load())[0]
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


# ---- hostile files --------------------------------------------------------------------------------------------------


def _pickle_attack(trace):
    return pickle.dumps({"model": {"weight": Attack(trace)}}, protocol=2)


def _raw_attack(opcodes):
    return lambda trace: opcodes.replace(b"TRACE", str(trace).encode())


def _text(text):
    """A string in protocol 4."""
    return b"\x8c" + bytes([len(text)]) + text.encode()


ATTACKS = {
    "reduce": _pickle_attack,
    "protocol 0": _raw_attack(b"cos\nmkdir\n(S'TRACE'\ntR." + b" " * 8),
    "inst": _raw_attack(b"(S'TRACE'\nios\nmkdir\n." + b" " * 8),
    "obj": _raw_attack(b"(cos\nmkdir\nS'TRACE'\no." + b" " * 8),
    "builtins": _raw_attack(b'c__builtin__\neval\n(S\'__import__("os").mkdir("TRACE")\'\ntR.'),
    "stack global": lambda trace: b"\x80\x04" + _text("os") + _text("mkdir") + b"\x93" + _text(str(trace)) + b"\x85R.",
    "dotted name": lambda trace: b"\x80\x04" + _text("collections") + _text("_sys.exit") + b"\x93)R." + b" " * 8,
    "getattr": _raw_attack(b"\x80\x02c__builtin__\ngetattr\n(c__builtin__\nset\nX\x08\x00\x00\x00__init__tR."),
    "unrestricted torch storage": lambda trace: pickle.dumps(_StorageAttack(trace), protocol=2),
}


class _StorageAttack:
    """torch.storage._load_from_bytes calls an unrestricted torch.load on the bytes it is given."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        inner = io.BytesIO()
        torch.save(Attack(self.trace), inner)
        return torch.storage._load_from_bytes, (inner.getvalue(),)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("container", ["weights.pkl", "weights.pth"])
def test_a_malicious_pickle_runs_nothing_and_names_what_it_asked_for(tmp_path, attack, container):
    trace = tmp_path / "trace"
    payload = ATTACKS[attack](trace)
    path = tmp_path / container
    if container.endswith(".pth"):
        torch.save({"model": STATE}, path)
        _replace_pickle(path, payload)
    else:
        path.write_bytes(payload)
    with pytest.raises(WeightsError, match=str(path)):
        read(path)
    assert not trace.exists()


def _replace_pickle(path, payload):
    """Swap the program inside a torch zip file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, payload if name.endswith("data.pkl") else data)


def test_the_attacks_are_real(tmp_path):
    # With the standard library's reader the same files do run code; otherwise the test above would prove nothing.
    for name in ("reduce", "protocol 0", "inst", "obj", "builtins", "stack global"):
        trace = tmp_path / name.replace(" ", "_")
        pickle.loads(ATTACKS[name](trace))
        assert trace.exists(), name


@pytest.mark.parametrize("container", ["weights.pkl", "weights.pth"])
def test_the_refused_global_is_named_with_a_remedy(tmp_path, container):
    path = tmp_path / container
    content = {"model": {"weight": Attack(tmp_path / "trace")}}
    if container.endswith(".pth"):
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=r"posix\.mkdir.*Nothing was run.*torch\.save"):
        read(path)


def test_config_objects_in_a_checkpoint_are_refused_by_name(tmp_path):
    path = tmp_path / "with_path.pth"
    torch.save({"model": STATE, "cfg": Path("x")}, path)
    with pytest.raises(WeightsError, match=r"pathlib\S*Path"):
        read(path)


def test_an_array_of_objects_cannot_be_smuggled_in_as_bytes(tmp_path):
    # dtype('O') whose state claims to hold no objects would let numpy read raw bytes as pointers.
    raw = b"\x41" * 8
    path = tmp_path / "pointers.pkl"
    path.write_bytes(
        b"\x80\x02}X\x01\x00\x00\x00wcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tX\x01\x00\x00\x00btR"
        b"(K\x01(K\x01tcnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR"
        b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + raw + b"tbs."
    )
    with pytest.raises(WeightsError, match="'O8'"):
        read(path)


def test_a_build_opcode_cannot_alter_the_reader(tmp_path):
    path = tmp_path / "vandal.pkl"
    # ArrayRecord.<class attribute "fill"> = set
    path.write_bytes(b"\x80\x02cnumpy\nndarray\n(N}X\x04\x00\x00\x00fillc__builtin__\nset\nstb." + b" " * 8)
    pickletools.dis(path.read_bytes(), out=io.StringIO())  # well-formed, so what raises is the BUILD itself
    with pytest.raises(WeightsError):
        read(path)
    path.write_bytes(pickle.dumps({"weight": np.ones(2)}))
    assert read(path).state["weight"].tolist() == [1, 1]


# ---- broken files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_a_truncated_file_is_reported_with_the_remedy(tmp_path, kind, keep):
    state = {f"layer{i}.weight": torch.randn(20, 20) for i in range(5)}
    path = tmp_path / "model"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in state.items()}))
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsError, match=r"model .*(Fetch the file again|Give a \.pth)"):
        read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"hello, I am a text file and no weights at all", "neither a torch file"),
        (b"", "0 bytes"),
        (bytes(range(200, 255)) * 4, "neither a torch file"),
    ],
    ids=["html", "lfs", "text", "empty", "noise"],
)
def test_files_that_are_no_weights_say_what_they_are(tmp_path, content, words):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth does not exist"):
        read(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"name": "resnet"}}, 5])
def test_files_without_tensors_are_refused(tmp_path, content):
    path = tmp_path / "no_tensors.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"Save model\.state_dict\(\)"):
        read(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_damaged_bytes_raise_nothing_but_a_weights_error(tmp_path, kind):
    state = {f"layer{i}.weight": torch.randn(3, 4) for i in range(3)}
    path = tmp_path / "model"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"model": {name: value.numpy() for name, value in state.items()}}))
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=kind == "zip")
    data, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), size=random.integers(1, 5)):
            damaged[place] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read(path)
        except WeightsError:
            refused += 1
    assert refused > 10  # the rest hit values, which no reader can know

"""Weights of strangers: small files that ask for much, tensors that claim more than there is, archives that lie.

Each file is read in a process that may use 2 GiB; it must be refused, or read rightly, within seconds.
"""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from limited import outcomes
from safetensors.torch import save_file

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import torch_file
from cvpods_ext.modeling.weights.budget import Budget
from cvpods_ext.modeling.weights.keys import translate
from cvpods_ext.modeling.weights.reader import read, read_training_state

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3, dtype=torch.float16)}
SPACES = b" " * 16
BYTES = b"cbuiltins\nbytearray\n"


def long(number):
    return b"\x8a\x08" + struct.pack("<q", number)


def nested(opening, closing, depth):
    return b"\x80\x02" + opening * depth + closing * depth + b"."


def doubled(first, both, levels):
    """Values that hold the one before twice, the last one on the stack: 2^levels values if they were written out."""
    steps = [both % (level, level) + b"q%c0" % (level + 1) for level in range(levels)]
    return first + b"q\x000" + b"".join(steps) + b"h%c" % levels


DOUBLED_LISTS = doubled(b"]", b"](h%ch%ce", 60)
DOUBLED_TUPLES = doubled(b")", b"h%ch%c\x86", 60)
ARRAY = pickle.dumps({"w": np.zeros(3, np.float32)}, 2)
# {"model": {"w": array}, "x": BESIDE}, where BESIDE may use memo positions from 0 on
WITH_TENSOR = (
    b"\x80\x02}(U\x05model}U\x01w"
    b"cnumpy\nndarray\n)R(K\x01(K\x01tcnumpy\ndtype\n(U\x02f4tR\x89U\x04abcdtb"
    b"sU\x01xBESIDEu."
)

GREEDY = {
    "a bytearray by its length": b"\x80\x02" + BYTES + long(6_000_000_000) + b"\x85R." + SPACES,
    "a bytearray of 2^62": b"\x80\x02" + BYTES + long(1 << 62) + b"\x85R." + SPACES,
    "a memo position of 300 million": b"\x80\x02K\x01r" + struct.pack("<I", 300_000_000) + b"." + SPACES,
    "a memo position of 2^32": b"\x80\x02K\x01r" + b"\xff" * 4 + b"." + SPACES,
    "a frame of 2^62 bytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N." + SPACES,
    "text of 2^40 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc." + SPACES,
    "bytes of 2^40": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc." + SPACES,
    "a bytearray of protocol 5 of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc." + SPACES,
    "a whole number of 2^31 bytes": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"abc." + SPACES,
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "lists 50,000 deep": nested(b"](", b"e", 50_000),
    "tuples 50,000 deep": b"\x80\x02)" + b"\x85" * 50_000 + b".",
    "a deep tuple as a key": b"\x80\x02})" + b"\x85" * 50_000 + b"K\x01s.",
    "2^60 values by references": b"\x80\x02" + DOUBLED_LISTS + b".",
    "2^60 values by references, beside tensors": WITH_TENSOR.replace(b"BESIDE", DOUBLED_LISTS),
    "a key with 2^60 parts": b"\x80\x02}" + DOUBLED_TUPLES + b"K\x01s.",
    "a list that holds itself": b"\x80\x02]q\x00h\x00a." + SPACES,
    "two million empty sets": b"\x80\x04(" + b"\x8f" * 2_000_000 + b"l.",
    "a set copied ten thousand times": b"\x80\x02](" + b"K\x01" * 255 + b"eq\x00c__builtin__\nset\nq\x01"
    + b"h\x01h\x00\x85R0" * 10_000 + b".",
    "bytes copied five thousand times": b"\x80\x02" + BYTES + b"q\x01B\x00\x00\x01\x00" + b"x" * (1 << 16) + b"q\x02"
    + b"h\x01h\x02\x85R" * 5000 + b".",
    "an array type of 10^9 bytes": b"\x80\x02cnumpy\ndtype\n(U\x0aS999999999K\x00K\x01tR." + SPACES,
    "an array of 10^12 values": ARRAY.replace(b"K\x03\x85", long(10**12) + b"\x85"),
    "a marker without end": b"\x80\x02" + b"(" * 100_000 + b".",
}  # fmt: skip


def test_small_files_do_not_eat_memory_or_time(tmp_path):
    names, paths = [], []
    for number, (name, content) in enumerate(GREEDY.items()):
        (tmp_path / f"{number}.pkl").write_bytes(content)
        with zipfile.ZipFile(tmp_path / f"{number}.pth", "w") as archive:  # the same program inside a torch file
            archive.writestr("a/data.pkl", content)
        found = [tmp_path / f"{number}.pkl"] + ([tmp_path / f"{number}.pth"] if len(content) < 10_000 else [])
        names += [name] * len(found)
        paths += found
    for name, outcome in zip(names, outcomes("cvpods_ext.modeling.weights.reader:read", paths), strict=True):
        assert outcome.kind == "refused", (name, outcome)
        assert "MemoryError" not in outcome.message, (name, outcome)
        assert outcome.peak_bytes < 1 << 30, (name, outcome)
        assert outcome.seconds < 20, (name, outcome)


# ---- tensors that lie -----------------------------------------------------------------------------------------------


class Lie:
    """Pickles as a tensor over the storage of `values` with any offset, size and stride."""

    def __init__(self, values, offset, size, stride):
        self.values, self.arguments = values, (offset, size, stride)

    def __reduce__(self):
        storage = self.values.untyped_storage()
        typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=self.values.dtype, _internal=True)
        return torch._utils._rebuild_tensor_v2, (typed, *self.arguments, False, {})


LIES = {
    "more values than the storage": (0, (1000,), (1,)),
    "a thousand million values": (0, (10**9,), (1,)),
    "one value beyond the end": (1, (12,), (1,)),
    "an offset beyond the end": (12, (1,), (1,)),
    "a negative offset": (-1, (2,), (1,)),
    "a negative size": (0, (-3,), (1,)),
    "a negative stride": (11, (3,), (-1,)),
    "a stride of 0": (0, (10**9,), (0,)),
    "a stride of 0 among others": (0, (3, 1000), (4, 0)),
    "windows that overlap": (0, (5, 8), (1, 1)),
    "a stride that reaches beyond the end": (0, (3, 4), (5, 1)),
    "a size whose product overflows": (0, (1 << 40, 1 << 40), (1, 1)),
    "fewer strides than sizes": (0, (3, 4), (1,)),
    "a size as text": (0, ("3",), (1,)),
    "a size in floats": (0, (3.0,), (1,)),
    "a hundred dimensions": (0, (1,) * 100, (1,) * 100),
}
TRUTHS = {
    "the whole": (0, (3, 4), (4, 1)),
    "transposed": (0, (4, 3), (1, 4)),
    "a column": (1, (3,), (4,)),
    "a dimension of one with a stride of 0": (0, (1, 12), (0, 1)),
    "nothing, beyond the end": (12, (0, 7), (7, 1)),
    "one value": (11, (), ()),
}


def write_claim(path, claim):
    values = torch.arange(12.0)
    content = {"model": {"w": Lie(values, *claim), "v": values}}
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=path.suffix == ".pth")


@pytest.mark.parametrize("suffix", [".pth", ".legacy", ".pkl"])
@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_its_storage_does_not_hold_is_refused(tmp_path, lie, suffix):
    path = tmp_path / f"lying{suffix}"
    write_claim(path, LIES[lie])
    with pytest.raises(WeightsError, match=r"lying.* cannot be used: .*(tensor|size)"):
        read(path)


@pytest.mark.parametrize("suffix", [".pth", ".legacy", ".pkl"])
@pytest.mark.parametrize("truth", TRUTHS)
def test_a_view_that_its_storage_holds_is_read(tmp_path, truth, suffix):
    path = tmp_path / f"view{suffix}"
    write_claim(path, TRUTHS[truth])
    offset, size, stride = TRUTHS[truth]
    assert torch.equal(read(path).state["w"], torch.arange(12.0).as_strided(size, stride, offset))


# ---- zip files ------------------------------------------------------------------------------------------------------


def rewrite(source, target, method=zipfile.ZIP_STORED, change=None):
    """Pack the entries of a torch file again; `change(name, data)` may alter one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, change(entry.filename, data) if change else data)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.pth"
    torch.save({"model": collections.OrderedDict(STATE), "iteration": 7}, path)
    return path


def test_entries_that_were_compressed_are_unpacked_not_mapped(tmp_path, saved):
    rewrite(saved, tmp_path / "packed.pth", zipfile.ZIP_DEFLATED)
    for name, value in read(tmp_path / "packed.pth").state.items():
        assert torch.equal(value, STATE[name]), name


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(tmp_path, saved, method):
    rewrite(saved, tmp_path / "packed.pth", method)
    with pytest.raises(WeightsError, match="packed in a way that is not read"):
        read(tmp_path / "packed.pth")


def test_a_packed_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(30_000_000)}, path)
    rewrite(path, tmp_path / "packed.pth", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "packed.pth").stat().st_size < 1 << 20
    (outcome,) = outcomes("cvpods_ext.modeling.weights.reader:read", [tmp_path / "packed.pth"])
    assert outcome.kind == "refused"
    assert "asks for more than 4 times as much memory" in outcome.message
    assert outcome.peak_bytes < 1 << 27


def test_a_packed_entry_that_is_longer_than_it_says_is_refused(tmp_path, saved):
    path = tmp_path / "packed.pth"
    rewrite(saved, path, zipfile.ZIP_DEFLATED, lambda name, data: data * 1000 if name.endswith("data/0") else data)
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    while not data[start + 46 :].startswith(b"saved/data/0"):
        start = data.index(b"PK\x01\x02", start + 4)
    data[start + 24 : start + 28] = struct.pack("<I", 48)  # the size that the directory claims
    path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="damaged"):
        read(path)


def test_entries_that_overlap_or_repeat_are_refused(tmp_path, saved):
    data = bytearray(saved.read_bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # where the entry lies
    (tmp_path / "overlap.pth").write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="overlaps"):
        read(tmp_path / "overlap.pth")
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("saved/data/0", b"x" * 48)
    with pytest.raises(WeightsError, match="same name"):
        read(saved)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("data/0", b"x" * 8, "8 bytes instead of 48"), ("byteorder", b"big", "byte order"), ("data.pkl", b"", "damaged")],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path, saved, name, content, words):
    path = tmp_path / "changed.pth"
    rewrite(saved, path, change=lambda entry, data: content if entry.endswith(f"/{name}") else data)
    with pytest.raises(WeightsError, match=words):
        read(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_programs_and_other_archives_say_what_they_are(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="TorchScript program"):
        read(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"x" * 100)
    with pytest.raises(WeightsError, match=r"not one that torch\.save wrote"):
        read(tmp_path / "photos.zip")
    import tarfile

    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    with pytest.raises(WeightsError, match=r"before 0\.4"):
        read(tmp_path / "old.pth")


def test_a_directory_of_a_million_entries_is_not_listed(tmp_path):
    path = tmp_path / "many.pth"
    header = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    directory = (header + b"x") * 500_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFE, 0xFFFE, len(directory), 4, 0)
    path.write_bytes(b"PK\x03\x04" + directory + end)
    (outcome,) = outcomes("cvpods_ext.modeling.weights.reader:read", [path])
    assert outcome.kind == "refused"
    assert "directory" in outcome.message
    assert outcome.peak_bytes < 1 << 28


# ---- safetensors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 1 << 39) + b"{}",
        struct.pack("<Q", 100) + b"{}" + SPACES,
        struct.pack("<Q", 20) + b'{"a": 5}            ',
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4]}}   ' + b"\0" * 4,
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000]}}   ' + b"\0" * 4,
        struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995,
        struct.pack("<Q", 70)
        + b'{"a\\u001b[2J":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(70)
        + b"\0" * 4,
    ],
    ids=["endless", "beyond the file", "no tensor", "oversized", "outside", "nested", "a name for the terminal"],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, header):
    path = tmp_path / "lying.safetensors"
    path.write_bytes(header)
    with pytest.raises(WeightsError, match=r"lying\.safetensors"):
        read(path)


def test_a_safetensors_header_is_bounded(tmp_path):
    path = tmp_path / "huge.safetensors"
    size = 64 << 20
    path.write_bytes(struct.pack("<Q", size) + b"{" + b" " * (size - 2) + b"}")
    with pytest.raises(WeightsError, match="claims 67,108,864 bytes"):
        read(path)


def test_versions_in_safetensors_may_be_nonsense(tmp_path):
    for text in ("[" * 100_000, '{"a": "x", "b": [], "c": 2}', "5"):
        save_file(STATE, tmp_path / "a.safetensors", metadata={"versions": text})
        assert read(tmp_path / "a.safetensors").metadata.get("versions", {}) in ({}, {"c": 2})


# ---- values beside the tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ({"versions": 5}, {}),
        ({"family": ["eva02"], "iteration": "7"}, {}),
        ({"iteration": 7, "note": "half \ud800"}, {"iteration": 7, "note": "half ?"}),
        ({"sizes": torch.Size([1, 2]), "type": torch.float16}, {"sizes": [1, 2], "type": "torch.float16"}),
    ],
)
def test_values_beside_the_tensors_are_plain_and_printable(tmp_path, beside, found):
    path = tmp_path / "a.pth"
    torch.save({"model": STATE, **beside}, path)
    assert read(path).metadata == found


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "\ud800", "x" * 5000])
def test_a_name_that_cannot_be_shown_is_refused(tmp_path, name):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({name: np.zeros(2)}))
    with pytest.raises(WeightsError, match="no short printable text"):
        read(tmp_path / "a.pkl")


def test_shapes_that_do_not_belong_to_their_names_are_told():
    scalar = torch.tensor(1.0)
    for state in (
        {"conv1_w": scalar, "cls_score_w": scalar},
        {"blocks.0.attn.qkv.weight": scalar, "blocks.0.attn.q_bias": scalar, "patch_embed.proj.weight": scalar},
    ):
        with pytest.raises(WeightsError, match=r"names are those of the .* family, but its shapes are not"):
            translate(state)


# ---- the same values as torch's own reader --------------------------------------------------------------------------

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8]
TYPES += [torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16]


def bits(value):
    return value.detach().contiguous().view(torch.uint8)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("copy", [False, True])
def test_every_type_is_read_as_torch_reads_it(dtype, legacy, copy):
    values = torch.arange(24).reshape(4, 6).to(dtype)
    content = {
        "t": values.t(), "part": values[1:, 2:4], "parameter": torch.nn.Parameter(torch.ones(2)), "empty": values[:0],
        "nested": [{"same": values}, (1, 2.5, None, True, "x", b"y", 1 << 70)], 5: torch.Size([2, 3]),
        "ordered": collections.OrderedDict(a=1), "set": {1, 2},
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    try:
        expected = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except AttributeError:
        pytest.skip("torch itself cannot read such a file")
    found = torch_file.load(bytearray(buffer.getvalue()), Budget(len(buffer.getvalue())), copy)
    for key in ("t", "part", "parameter", "empty"):
        assert found[key].dtype == expected[key].dtype
        assert found[key].stride() == expected[key].stride()
        assert torch.equal(bits(found[key]), bits(expected[key])), key
    assert found["nested"][1] == expected["nested"][1]
    assert found["t"].untyped_storage().data_ptr() == found["nested"][0]["same"].untyped_storage().data_ptr()
    assert (found[5], found["ordered"], found["set"]) == ((2, 3), expected["ordered"], expected["set"])


def test_a_training_state_is_a_dict_with_an_iteration(tmp_path):
    path = tmp_path / "a.pth"
    for content in ([1], {"model": {}}, {"iteration": "5"}, {"iteration": True}):
        torch.save(content, path)
        with pytest.raises(WeightsError, match="no checkpoint of a run of ours"):
            read_training_state(path)
    torch.save({"iteration": 5, "betas": (0.9, 0.99)}, path)
    assert read_training_state(path) == {"iteration": 5, "betas": (0.9, 0.99)}
    save_file(STATE, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="weights only"):
        read_training_state(tmp_path / "a.safetensors")

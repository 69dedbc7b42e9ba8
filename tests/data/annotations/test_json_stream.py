import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.data.annotations import json_stream
from cvpods_ext.data.annotations.json_stream import JsonStream
from cvpods_ext.errors import DataError

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def collect(path):
    """What `items` gives, put together again."""
    stream = JsonStream(path)
    found = {}
    for key, value in stream.items():
        found.setdefault(key, []).append(value)
    return found, stream


@settings(max_examples=60, deadline=None)
@given(
    content=st.dictionaries(st.text(max_size=5), values, max_size=5),
    chunk=st.integers(1, 50),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_any_object_is_read_the_same_whatever_the_chunk_size(tmp_path_factory, content, chunk, indent, ascii_only):
    path = tmp_path_factory.mktemp("stream") / "x.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK_BYTES", chunk)
        found, stream = collect(path)
    expected = {key: value if isinstance(value, list) else [value] for key, value in content.items()}
    assert found == {key: value for key, value in expected.items() if value}
    assert stream.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_file_cut_anywhere_is_reported_as_cut_off(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk)
    text = '{"a": [{"b": [1.5, -2e3]}, {"c": "d\\u00e9"}], "e": 12, "f": true}'
    for length in range(1, len(text)):
        path = tmp_path / "cut.json"
        path.write_text(text[:length])
        with pytest.raises(DataError, match=r"cut\.json ends in the middle of the data, .*repeat it"):
            collect(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty; download it again"),
        ("[1, 2]", r"'\[' where one of '\{' was expected"),
        ('{"a": [1, 2], ' + " " * 50 + "b: 3}" + " " * 60, "Expecting value"),
        ('{"a": [1 2]}', "where one of ',]' was expected"),
        ("{1: 2}", "a key in quotes"),
        ('{"a": 1} {"b": 2}', "more text follows"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_text_that_is_not_json_says_where_and_why(tmp_path, text, reason):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        collect(path)


def test_a_syntax_error_does_not_read_the_rest_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 100)
    path = tmp_path / "bad.json"
    path.write_text('{"a": [{"b": 1,, "c": 2}, ' + "1, " * 100_000 + "1]}")
    read = []
    with pytest.raises(DataError, match="not valid JSON at character 15"):
        list(JsonStream(path, read.append).items())
    assert sum(read) <= 400


def test_a_compressed_file_is_recognised(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"PK\x03\x04\x8f\xff\xfe")
    with pytest.raises(DataError, match="still compressed"):
        collect(path)


def test_progress_counts_every_byte(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": "é"}', encoding="utf-8")
    read = []
    list(JsonStream(path, read.append).items())
    assert sum(read) == path.stat().st_size == 11

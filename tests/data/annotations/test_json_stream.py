import gzip
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


class Everything:
    """Every key is wanted."""

    def __contains__(self, key):
        return True


def collect(path, wanted=("a",)):
    """What `elements` gives, put together again."""
    stream = JsonStream(path)
    found = {}
    for key, value in stream.elements(wanted):
        found.setdefault(key, []).append(value)
    return found, stream


@settings(max_examples=60, deadline=None)
@given(
    content=st.dictionaries(st.text(max_size=5), st.none() | st.lists(values, max_size=4), max_size=5),
    chunk=st.integers(1, 50),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_any_object_is_read_the_same_whatever_the_chunk_size(tmp_path_factory, content, chunk, indent, ascii_only):
    path = tmp_path_factory.mktemp("stream") / "x.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK_BYTES", chunk)
        found, stream = collect(path, Everything())
    assert found == {key: value for key, value in content.items() if value}
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
        ("5", r"'5' where one of '\{' was expected"),
        ("[1, 2]", "holds a list, not images and categories"),
        ('{"a": {"b": 1}}', "'a' is an object, not a list"),
        ('{"b": 1' + "0" * 5000 + "}", "not valid JSON at character 6: Exceeds the limit"),
        ('{"a": [1, 2], ' + " " * 50 + "b: 3}" + " " * 60, "Expecting value"),
        ('{"a": [1 2]}', "where one of ',]' was expected"),
        ("{1: 2}", "a key in quotes"),
        ('{"b": 1} {"b": 2}', "more text follows"),
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
        list(JsonStream(path, read.append).elements("a"))
    assert sum(read) <= 400


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04\x8f\xff\xfe", "is a zip archive: unpack it first"),
        (b"BZh9\x8f\xff\xfe", "unpack it"),
        (gzip.compress(b'{"a": [1]}')[:-9], "is a damaged gzip file"),
        (gzip.compress(b'{"a": [1]}')[:-9] + b"x" * 9, "is a damaged gzip file"),
        (b"\xff\xfe{\x00}\x00", "is not text in UTF-8"),
    ],
)
def test_a_file_that_is_no_plain_text_says_what_it_is(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        collect(path)


def test_a_gzip_file_and_a_byte_order_mark_are_read(tmp_path):
    text = b'{"b": {"c": [2]}, "a": [1, {"d": null}], "e": [5, 6]}'
    for content in (text, b"\xef\xbb\xbf" + text, gzip.compress(text), gzip.compress(b"\xef\xbb\xbf" + text)):
        path = tmp_path / "x.json"
        path.write_bytes(content)
        found, stream = collect(path)
        assert found == {"a": [1, {"d": None}]}
        assert stream.sha256 == hashlib.sha256(content).hexdigest()


def test_a_list_is_read_element_by_element(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[1, {"a": 2}, []]')
    assert list(JsonStream(path).items()) == [1, {"a": 2}, []]
    for text, reason in (('[1] "more"', "more text follows the end of the list"), ('{"a": 1}', "does not hold a list")):
        path.write_text(text)
        with pytest.raises(DataError, match=reason):
            list(JsonStream(path).items())


def test_a_value_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "LONGEST_VALUE", 1000)
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 100)
    path = tmp_path / "x.json"
    path.write_text('{"a": ["' + "x" * 100_000)
    read = []
    with pytest.raises(DataError, match="a value of more than 1,000 characters"):
        list(JsonStream(path, read.append).elements("a"))
    assert sum(read) < 5000


def test_progress_counts_every_byte(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"b": "é"}', encoding="utf-8")
    read = []
    list(JsonStream(path, read.append).elements("a"))
    assert sum(read) == path.stat().st_size == 11

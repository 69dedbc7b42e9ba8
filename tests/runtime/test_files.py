import hashlib
import json

import pytest

from cvpods_ext.runtime.files import atomic_path, sha256_of, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path):
    write_json(tmp_path / "deep" / "er" / "a.json", [1])
    assert json.loads((tmp_path / "deep" / "er" / "a.json").read_text()) == [1]


def test_nan_does_not_become_invalid_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_checksums_are_those_of_the_whole_content(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 10_000)
    assert sha256_of(path, chunk_bytes=999) == hashlib.sha256(b"x" * 10_000).hexdigest()

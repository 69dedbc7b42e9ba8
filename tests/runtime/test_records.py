"""metrics.jsonl: a damaged line costs that line and nothing else."""

import itertools
import json
import random

import pytest

from cvpods_ext.errors import StorageError
from cvpods_ext.runtime import files
from cvpods_ext.runtime.records import append_record, drop_records_after, last_record, read_records

GOOD = [{"iteration": i, "total_loss": 1.0 / i, "time": 0.5} for i in (1, 2, 3)]


def lines(*records):
    return [json.dumps(record).encode() for record in records]


DAMAGE = {
    "zero bytes after a power cut": b"\0\0\0\0",
    "two torn lines": b'{"iter{"iteration": 2}',
    "an empty line": b"",
    "no text": b"\xff\xfe\x80",
    "null": b"null",
    "a bare number": b"5",
    "a list": b"[1, 2]",
    "no iteration": b'{"time": 1.0}',
    "an iteration as text": b'{"iteration": "2"}',
    "a negative iteration": b'{"iteration": -2}',
    "a truth value for an iteration": b'{"iteration": true}',
    "an iteration without end": b'{"iteration": 1' + b"0" * 400 + b"}",
    "a number of 5,000 digits": b'{"iteration": 2, "time": ' + b"9" * 5000 + b"}",
    "a number of 400 digits": b'{"iteration": 2, "time": ' + b"9" * 400 + b"}",
    "200,000 brackets": b"[" * 200_000,
    "a lone surrogate cut in two": b'{"iteration": 2, "note": "\xed\xa0\x80"}',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_costs_that_line(tmp_path, damage, caplog):
    file = tmp_path / "metrics.jsonl"
    first, second, third = lines(*GOOD)
    file.write_bytes(b"\n".join((first, DAMAGE[damage], second, third)) + b"\n")
    with caplog.at_level("WARNING", logger="cvpods_ext"):
        assert read_records(file) == GOOD
        assert last_record(file, numbers=("time",)) == GOOD[2]
        assert drop_records_after(file, 2) == GOOD[:2]
    assert "1 of 4 lines is damaged or out of order and left out, the first is line 2" in caplog.text
    assert file.read_bytes() == first + b"\n" + second + b"\n"
    assert drop_records_after(file, 2) == GOOD[:2]


@pytest.mark.parametrize(
    ("iterations", "kept"),
    [
        ([1, 2, 999_999, 3, 4], [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5, 2], [1, 2, 3, 4, 5]),
        ([999_999, 1, 2, 3], [1, 2, 3]),
        ([4, 4, 5, 5, 8], [4, 4, 5, 5, 8]),
        ([1, 2, 3, 1, 2, 3, 4, 5], [1, 1, 2, 3, 4, 5]),
        ([5], [5]),
    ],
)
def test_lines_out_of_order_are_left_out_as_few_as_possible(tmp_path, iterations, kept, caplog):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines(*({"iteration": i, "time": 0.5} for i in iterations))))
    with caplog.at_level("WARNING", logger="cvpods_ext"):
        assert sorted(record["iteration"] for record in read_records(file)) == sorted(kept)
    dropped = len(iterations) - len(kept)
    said = f"{dropped} of {len(iterations)} lines {'is' if dropped == 1 else 'are'} damaged or out of order"
    assert (said in caplog.text) == (dropped > 0)
    assert last_record(file)["iteration"] == kept[-1]


def test_the_records_kept_of_any_order_are_as_many_as_can_be(tmp_path):
    """Against every subset of seven lines."""
    file, generator = tmp_path / "metrics.jsonl", random.Random(0)
    for _ in range(40):
        iterations = [generator.randrange(6) for _ in range(7)]
        file.write_bytes(b"".join(line + b"\n" for line in lines(*({"iteration": i} for i in iterations))))
        found = [record["iteration"] for record in read_records(file)]
        subsets = (kept for count in range(8) for kept in itertools.combinations(iterations, count))
        longest = max(len(kept) for kept in subsets if list(kept) == sorted(kept))
        assert found == sorted(found)
        assert len(found) == longest


def test_a_record_beyond_the_end_of_the_run_is_not_the_last_one(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines(*GOOD, {"iteration": 999_999, "time": 0.5})))
    assert last_record(file, most=100) == GOOD[2]
    assert drop_records_after(file, 3) == GOOD


def test_a_last_line_that_a_kill_cut_off_goes_without_a_warning(tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"\n".join((*lines(*GOOD), b'{"iteration": 4, "ti')))
    with caplog.at_level("WARNING", logger="cvpods_ext"):
        assert drop_records_after(file, 9) == GOOD
    assert not caplog.text
    append_record(file, {"iteration": 4})
    assert [record["iteration"] for record in read_records(file)] == [1, 2, 3, 4]


@pytest.mark.parametrize("value", ["null", '"0.5"', "true", "NaN", "Infinity", "[0.5]"])
def test_the_last_record_has_numbers_where_numbers_are_asked_for(tmp_path, value):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(lines(GOOD[0])[0] + b'\n{"iteration": 2, "time": ' + value.encode() + b"}\n")
    assert last_record(file, numbers=("time",)) == GOOD[0]


def test_no_file_is_no_records(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert read_records(file) == drop_records_after(file, 5) == []
    assert last_record(file) == {}
    assert not file.exists()


def test_a_record_that_a_full_disk_cuts_off_is_taken_back(tmp_path, monkeypatch):
    file = tmp_path / "metrics.jsonl"
    append_record(file, GOOD[0])

    class Full:
        """The system's file on a disk that has room for five more bytes."""

        def __init__(self, *arguments, **options):
            self.file = open(*arguments, **options)  # noqa: SIM115 - closed by __exit__

        def write(self, data):
            return self.file.write(data[:5])

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(files, "open", Full, raising=False)
    with pytest.raises(StorageError, match=r"No space left on device; .* GiB free\). Make room"):
        append_record(file, GOOD[1])
    monkeypatch.undo()
    assert read_records(file) == GOOD[:1]
    assert file.read_bytes().endswith(b"\n")

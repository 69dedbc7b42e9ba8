"""Random damage to every file that is read back gives a right result or a message, in bounded memory and time."""

import pytest
from damaged_files import KINDS, damaged
from limited import outcomes


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(tmp_path, count, capsys):
    names = [name for kind in KINDS for name in damaged(kind, tmp_path / kind, count)]
    found = outcomes("damaged_files:use", names)
    broken = [(outcome.path, outcome.message) for outcome in found if outcome.kind not in ("read", "refused")]
    assert broken == []
    assert len(found) == len(names)
    for kind in KINDS:
        mine = [outcome for outcome in found if outcome.path.startswith(f"{kind}|")]
        refused = sum(outcome.kind == "refused" for outcome in mine)
        peak, seconds = max(outcome.peak_bytes for outcome in mine), max(outcome.seconds for outcome in mine)
        if count >= 200:
            with capsys.disabled():
                print(f"\n  {kind}: {count} damages, {refused} refused, peak {peak >> 20} MiB, {seconds:.2f} s", end="")
        assert peak < 2 << 30, kind
        assert seconds < 20, kind
        # A damaged metrics.jsonl is never refused; elsewhere reading everything would mean that nothing is checked.
        assert (refused == 0) if kind == "metrics.jsonl" else (refused > count // 10), kind


def test_undamaged_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("damaged_files.damage", lambda data, random: data)
    for kind in KINDS:
        (name,) = damaged(kind, tmp_path / kind, 1)
        (outcome,) = outcomes("damaged_files:use", [name])
        assert outcome.kind == "read", outcome

import errno
import json
import threading

import pytest
import torch
from torch import nn

from cvpods_ext.engine.checkpoint import INDEX, BackgroundSaver, CheckpointFolder
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import StorageError, WeightsError


@pytest.fixture
def run(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return CheckpointFolder(tmp_path, keep=2), model, optimizer


def state_of(model, optimizer, iteration):
    return TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False)).capture(iteration)


def test_the_newest_checkpoint_comes_back_with_optimizer_state(run):
    folder, model, optimizer = run
    folder.save(state_of(model, optimizer, 5))
    folder.save(state_of(model, optimizer, 10))
    state = folder.latest()
    assert state["iteration"] == 10
    assert torch.equal(state["model"]["weight"], model.weight)
    assert torch.equal(
        state["optimizer"]["state"][0]["momentum_buffer"], optimizer.state[model.weight]["momentum_buffer"]
    )


def test_only_the_last_few_are_kept(run):
    folder, model, optimizer = run
    for iteration in (1, 2, 3):
        folder.save(state_of(model, optimizer, iteration))
    assert sorted(p.name for p in folder.folder.glob("*.pth")) == ["model_iter_0000002.pth", "model_iter_0000003.pth"]


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run, damage, caplog):
    folder, model, optimizer = run
    folder.save(state_of(model, optimizer, 5))
    last = folder.save(state_of(model, optimizer, 10))
    last.write_bytes(last.read_bytes()[:100]) if damage == "truncated" else last.unlink()
    with caplog.at_level("WARNING", logger="cvpods_ext"):
        assert folder.latest()["iteration"] == 5
    assert last.name in caplog.text


def test_a_full_disk_keeps_what_was_there_and_says_what_to_do(run, monkeypatch):
    folder, model, optimizer = run
    folder.save(state_of(model, optimizer, 5))

    def full_disk(state, file):
        file.write(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(StorageError, match=r"No space left.*continue with --resume"):
        folder.save(state_of(model, optimizer, 10))
    assert folder.latest()["iteration"] == 5
    assert sorted(p.name for p in folder.folder.iterdir()) == ["checkpoints.json", "model_iter_0000005.pth"]


def test_space_for_checkpoints_is_asked_for_before_they_are_written(run):
    folder, model, optimizer = run
    folder.require_space(1 << 20, count=2)
    with pytest.raises(StorageError, match=r"has .* GiB free, and 2 more checkpoints of 1048576\.00 GiB must fit"):
        folder.require_space(1 << 50, count=2)
    path = folder.save(state_of(model, optimizer, 5))
    state = TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    assert state.checkpoint_bytes() == 2 * 4 * (4 + 2)  # 4 + 2 float32 weights, each with its momentum
    assert state.checkpoint_bytes() < path.stat().st_size


def test_final_weights_are_preferred_for_testing(run):
    folder, model, optimizer = run
    assert folder.weights() is None
    iteration = folder.save(state_of(model, optimizer, 5))
    assert folder.weights() == iteration
    assert folder.save_final({"model": model.state_dict(), "iteration": 5}) == folder.weights()


def test_a_checkpoint_holds_plain_values_only(run):
    folder, model, optimizer = run
    torch.load(folder.save(state_of(model, optimizer, 5)), weights_only=True)


def test_milestones_outlive_the_last_few(run):
    folder, model, optimizer = run
    folder = CheckpointFolder(folder.folder, keep=1, keep_every=4)
    for iteration in range(2, 12, 2):
        folder.save(state_of(model, optimizer, iteration))
    kept = [int(path.stem[-7:]) for path in sorted(folder.folder.glob("*.pth"))]
    assert kept == [4, 8, 10]
    assert folder.latest()["iteration"] == 10


def test_the_best_rated_outlives_the_last_few(run):
    folder, model, optimizer = run
    folder = CheckpointFolder(folder.folder, keep=1)
    assert folder.best() is None
    for iteration, score in ((2, 10.0), (4, 30.0), (6, 20.0), (8, 30.0)):
        folder.save(state_of(model, optimizer, iteration))
        folder.rate(iteration, score)
    kept = [int(path.stem[-7:]) for path in sorted(folder.folder.glob("*.pth"))]
    assert kept == [4, 8]  # of equals the earlier one, and the last
    assert folder.best() == folder.of_iteration(4) == folder.folder / "model_iter_0000004.pth"
    assert folder.of_iteration(6) is None
    assert folder.latest()["iteration"] == 8


def test_a_captured_state_does_not_follow_the_model(run):
    _, model, optimizer = run
    captured = state_of(model, optimizer, 5)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
        optimizer.state[model.weight]["momentum_buffer"].zero_()
    assert torch.equal(captured["model"]["weight"], before)
    assert captured["optimizer"]["state"][0]["momentum_buffer"].abs().sum() > 0


def test_a_checkpoint_is_written_while_training_goes_on(run, monkeypatch):
    folder, model, optimizer = run
    go_on, save = threading.Event(), torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (go_on.wait(30), save(*args)))
    with BackgroundSaver(folder) as saver:
        saver.save(state_of(model, optimizer, 5))  # returns although the disk is slow
        assert folder.latest() is None
        go_on.set()
    assert folder.latest()["iteration"] == 5


def test_equal_states_are_equal_files(run):
    folder, model, optimizer = run
    paths = [CheckpointFolder(folder.folder / name).save(state_of(model, optimizer, 5)) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_failed_write_in_the_background_is_told(run, monkeypatch):
    folder, model, optimizer = run

    def full_disk(state, file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    saver = BackgroundSaver(folder)
    saver.save(state_of(model, optimizer, 5))
    with pytest.raises(StorageError, match="No space left"):
        saver.save(state_of(model, optimizer, 6))


def test_what_a_killed_write_left_is_swept_away(run):
    folder, model, optimizer = run
    folder.save(state_of(model, optimizer, 5))
    (folder.folder / ".model_iter_0000010.pth.abc.tmp").write_bytes(b"half")
    folder.sweep()
    assert sorted(p.name for p in folder.folder.iterdir()) == ["checkpoints.json", "model_iter_0000005.pth"]


def test_a_checkpoint_of_another_model_is_refused_with_advice(run):
    _, model, optimizer = run
    other = nn.Linear(2, 3)
    state = TrainingState(other, torch.optim.SGD(other.parameters()), torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(WeightsError, match=r"does not fit this experiment.*net\.py"):
        state.restore(state_of(model, optimizer, 5))


def test_a_checkpoint_of_other_classes_names_the_shapes_and_the_command_that_carries_weights_over(run):
    _, model, optimizer = run
    more = nn.Linear(2, 3)
    state = TrainingState(more, torch.optim.SGD(more.parameters()), torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(WeightsError, match=r"weight has shape \[.*\] there and \[.*\] here.*pods_weights convert"):
        state.restore(state_of(model, optimizer, 5))


# ---- a list that was damaged, or made by somebody else ---------------------------------------------------------------

SOUND = {"file": "model_iter_0000001.pth", "iteration": 1, "sha256": "0" * 64}
BAD_ENTRIES = {
    "a file outside": {**SOUND, "file": "../precious.pth"},
    "an absolute path": {**SOUND, "file": "/etc/hostname"},
    "a file of another kind": {**SOUND, "file": "config.json"},
    "the folder itself": {**SOUND, "file": "."},
    "a file in a folder below": {**SOUND, "file": "previous-1/model_iter_0000001.pth"},
    "a name with a line end": {**SOUND, "file": "model_iter_0000001.pth\n"},
    "a number for a file": {**SOUND, "file": 5},
    "an iteration that is not the file's": {**SOUND, "iteration": 2},
    "an iteration as text": {**SOUND, "iteration": "1"},
    "a truth value for an iteration": {**SOUND, "iteration": True},
    "no checksum": {"file": "model_iter_0000001.pth", "iteration": 1},
    "a checksum of another length": {**SOUND, "sha256": "0"},
    "a score as text": {**SOUND, "score": "high"},
    "a score that is no number": {**SOUND, "score": float("nan")},
    "a score beyond floats": {**SOUND, "score": 10**400},
    "null": None,
    "a list": [1],
}


@pytest.mark.parametrize("bad", BAD_ENTRIES)
def test_a_listed_file_is_one_of_this_folder_or_the_list_is_refused(tmp_path, bad):
    (tmp_path / "precious.pth").write_text("mine")
    folder = CheckpointFolder(tmp_path / "run", keep=1)
    kept = folder.save({"iteration": 7, "model": {}})
    entries = json.loads((folder.folder / INDEX).read_text())["checkpoints"]
    content = json.dumps({"checkpoints": [BAD_ENTRIES[bad], *entries]})
    (folder.folder / INDEX).write_text(content)
    for use in (folder.latest, folder.best, folder.weights, lambda: folder.save({"iteration": 9, "model": {}})):
        with pytest.raises(WeightsError, match=r"checkpoints\.json lists .*Nothing was changed.*--weights FILE"):
            use()
    assert (tmp_path / "precious.pth").read_text() == "mine"
    assert (folder.folder / INDEX).read_text() == content
    assert sorted(folder.folder.iterdir()) == [folder.folder / INDEX, kept]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'{"checkpoints": 5}', b'{"checkpoints": {}}', b"\xff\xfe", b"\0" * 40, b"[" * 100_000],
    ids=["empty", "cut short", "null", "a list", "a number", "an object", "no text", "zero bytes", "nested"],
)
def test_a_damaged_list_is_told_with_the_remedy_and_nothing_is_changed(run, content):
    folder, model, optimizer = run
    kept = folder.save(state_of(model, optimizer, 5))
    (folder.folder / INDEX).write_bytes(content)
    for use in (folder.latest, lambda: folder.save(state_of(model, optimizer, 6))):
        with pytest.raises(WeightsError, match=r"checkpoints\.json .*Nothing was changed.*--resume.*--weights FILE"):
            use()
    assert sorted(folder.folder.iterdir()) == [folder.folder / INDEX, kept]
    assert (folder.folder / INDEX).read_bytes() == content


def test_a_run_whose_checkpoints_are_all_lost_does_not_start_over_by_itself(run):
    folder, model, optimizer = run
    folder.save(state_of(model, optimizer, 5)).unlink()
    folder.save(state_of(model, optimizer, 10)).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"none of the 2 checkpoints .* is there and sound.*without --resume"):
        folder.latest()


def test_a_checkpoint_that_cannot_be_removed_does_not_end_the_run(run, caplog):
    folder, model, optimizer = run
    old = folder.save(state_of(model, optimizer, 1))
    old.unlink()
    old.mkdir()
    with caplog.at_level("WARNING", logger="cvpods_ext"):
        for iteration in (2, 3):
            folder.save(state_of(model, optimizer, iteration))
    assert f"{old} is no longer needed and cannot be removed" in caplog.text
    assert folder.latest()["iteration"] == 3

import json

from cvpods_ext.engine.logging.metrics import Monitor
from cvpods_ext.engine.logging.writers import TensorBoard
from cvpods_ext.evaluation.detection import METRICS


def test_records_hold_medians_of_the_interval(tmp_path):
    with Monitor(tmp_path, start=0, total=4, every=2, writers=[TensorBoard(tmp_path, 0)]) as monitor:
        for iteration, loss in enumerate((1.0, 3.0, 5.0, 100.0)):
            monitor.add(total_loss=loss, time=0.1, data_time=0.0)
            monitor.step(iteration + 1, lr=0.5)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["iteration"], r["total_loss"], r["lr"]) for r in records] == [(2, 2.0, 0.5), (4, 52.5, 0.5)]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_resumed_run_drops_what_was_written_beyond_its_checkpoint(tmp_path):
    lines = [json.dumps({"iteration": i, "total_loss": 1.0}) for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"iteration": 4, "tot')
    with Monitor(tmp_path, start=2, total=3, every=1) as monitor:
        monitor.add(total_loss=9.0, time=0.1, data_time=0.0)
        monitor.step(3, lr=0.5)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["iteration"], r["total_loss"]) for r in records] == [(1, 1.0), (2, 1.0), (3, 9.0)]


def test_nothing_is_written_before_the_first_losses_are_known(tmp_path):
    """On a GPU they are read one step late."""
    with Monitor(tmp_path, start=0, total=2, every=1) as monitor:
        monitor.add(time=0.1, data_time=0.0)
        monitor.step(1, lr=0.5)
        assert not (tmp_path / "metrics.jsonl").exists()
        monitor.add(time=0.1, data_time=0.0, total_loss=2.0)
        monitor.step(2, lr=0.5)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["iteration"] == 2


def test_a_test_is_recorded_once_however_often_it_is_reported(tmp_path):
    for _ in range(2):  # the second time as a resumed run
        with Monitor(tmp_path, start=3, total=4, every=1) as monitor:
            monitor.tested(3, {"segm": {"AP": 20.5, "APr": None}}, METRICS)
            monitor.tested(3, {"segm": {"AP": 20.5, "APr": None}}, METRICS)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"iteration": 3, "test/segm/AP": 20.5}\n'

import pytest

from cvpods_ext.data.resilient_loader import ResilientLoader
from cvpods_ext.engine.logging.data_time import DataWait, advice
from cvpods_ext.errors import DataError, TrainingError

KILLED = DataError("a data loader process was killed")
KILLED.__cause__ = RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed.")


def batches(start, die_at=None, error=KILLED):
    """Micro-batches, two to an iteration, as (iteration, index)."""
    for number in range(2 * start, 2 * start + 100):
        if number == die_at:
            raise error
        yield divmod(number, 2)


def take(loader, count):
    return [next(loader) for _ in range(count)]


@pytest.mark.parametrize("die_at", [6, 9])
def test_new_processes_go_on_at_the_same_batch(die_at):
    opened = []

    def open_at(iteration):
        opened.append(iteration)
        return batches(iteration, die_at if len(opened) == 1 else None)

    loader = ResilientLoader(open_at, start=3, micro_batches=2)
    assert take(loader, 8) == [divmod(number, 2) for number in range(6, 14)]
    assert opened == [3, die_at // 2]


def test_processes_that_die_again_and_again_end_the_run_with_advice():
    loader = ResilientLoader(lambda iteration: batches(iteration, die_at=0), start=0, micro_batches=2)
    with pytest.raises(TrainingError, match=r"lower data\.workers"):
        next(loader)


@pytest.mark.parametrize("error", [RuntimeError("Caught IndexError in worker 0"), DataError("9 images cannot be read")])
def test_any_other_error_is_not_hidden(error):
    with pytest.raises(type(error), match=str(error)):
        next(ResilientLoader(lambda iteration: batches(iteration, 0, error), start=0, micro_batches=2))


@pytest.mark.parametrize(
    ("workers", "processes", "cores", "busy", "remedy"),
    [
        (0, 1, 8, 0.0, "data.workers=4"),
        (4, 1, 16, 0.95, "Set data.workers=8"),
        (4, 8, 32, 0.95, "take all 32 cores"),
        (4, 1, 16, 0.1, "local disk"),
    ],
)
def test_advice_names_the_bottleneck_and_the_setting(workers, processes, cores, busy, remedy):
    assert remedy in advice(workers, processes, cores, busy)


def test_advice_is_given_once_and_only_for_a_lasting_wait():
    wait = DataWait(workers=0, processes=1)
    given = [wait.advise(1.0, data_time) for data_time in (0.5, 0.0, 0.5, 0.5, 0.5, 0.5)]
    assert [text is not None for text in given] == [False, False, False, False, True, False]
    assert given[4].startswith("0.50 of 1.00 s of a step are spent waiting for images")

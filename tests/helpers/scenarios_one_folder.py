"""Two runs that want the same folder, one after the other or at once; outcomes as in `scenarios`."""

import os
import shutil
import signal
from pathlib import Path

from processes import TIMEOUT, differences, last_iteration, running, train
from scenarios import die_in_a_write
from workshop import SLOW, Outcome, Workshop, command, resumed, until, wait_for, wait_gone, workers


def two_at_once(shop: Workshop) -> Outcome:
    """A second pods_train in the folder of one that runs: refused, and told who is there."""
    output = shop.output("shared")
    with running(shop.experiment, output, environment=SLOW) as run:
        run.wait_until(2)
        for resume in (False, True):
            with running(shop.experiment, output, resume=resume) as second:
                codes = second.wait()
            assert codes == [2], (codes, second.log()[-2000:])
        assert "is in use by pods_train on host " in run.log()
        assert f"process {run.processes[0].pid}, since" in run.log()
        codes = run.wait()
    assert codes == [0], (codes, run.log()[-2000:])
    assert not list(output.glob("previous-*"))
    return Outcome("two runs in one folder", "the second was refused", "nothing", differences(output, shop.reference()))


def _finished(shop: Workshop) -> Path:
    """A copy of the undisturbed run."""
    output = shop.output("finished")
    shutil.copytree(shop.reference(), output)
    return output


def killed_over_a_finished_run(shop: Workshop) -> Outcome:
    """A new run starts where a finished one is, and is killed before its first checkpoint."""
    output = _finished(shop)
    with running(shop.experiment, output, "seed=1", environment=SLOW) as run:
        held = output / ".replaced" / "others.json"
        until(lambda: held.exists() and last_iteration(output) >= 2, "step 2 of the new run")
        run.signal(signal.SIGKILL)
        run.wait()
    assert (output / "model_final.pth").read_bytes() == (shop.reference() / "model_final.pth").read_bytes()
    return resumed(shop, output, "kill -9 of a new run over a finished one", "the finished one is as it was")


def killed_while_it_replaces(shop: Workshop, moment: str) -> Outcome:
    """A new run starts where a finished one is, and is killed while it writes its first checkpoint."""
    output = _finished(shop)
    codes = train(shop.experiment, output, "seed=1", prepare=(die_in_a_write, (moment, 4)))
    assert codes == [-signal.SIGKILL], codes
    fault = f"kill -9 of a new run in its first checkpoint, {moment}, over a finished one"
    if moment == "in the file":
        return resumed(shop, output, fault, "the finished one is as it was")
    found = differences(output / "previous-1", shop.reference())
    return Outcome(fault, "the finished one is in previous-1", "nothing", found, kills=1)


def failed_over_a_finished_run(shop: Workshop) -> Outcome:
    """A new run starts where a finished one is, and ends by itself: its weights do not exist, then a loss is NaN."""
    output = _finished(shop)
    for overrides, environment in ((["model.init='absent.pth'"], {}), ([], {"TINY_NAN": "0:8"})):
        codes = train(shop.experiment, output, *overrides, environment=environment)
        assert codes == [2], codes
        found = differences(output, shop.reference())
        assert not list(output.glob("previous-*"))
        assert found == [], (overrides, found)
    return resumed(shop, output, "a new run over a finished one fails", "the finished one is as it was")


def restarted_over_a_finished_run(shop: Workshop) -> Outcome:
    """pods_train --max-restarts where a finished run is: a worker is killed before and after the first checkpoint."""
    output = shop.output("restarted")
    assert train(shop.experiment, output, "seed=1") == [0]
    (output / "metrics.jsonl").rename(output / "metrics.kept")
    with command(shop, output, "--max-restarts", "2") as launcher:
        for iteration in (2, 6):
            wait_for(output, iteration, launcher)
            (victim,) = workers(launcher.pid)
            os.kill(victim, signal.SIGKILL)
            wait_gone([victim])
        assert launcher.wait(TIMEOUT) == 0
    assert (output / "previous-1" / "model_final.pth").is_file()
    found = differences(output, shop.reference())
    return Outcome("restarts over a finished run", "started over, then continued", "nothing", found, kills=2)

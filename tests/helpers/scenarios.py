"""Faults that happen to long runs, each injected into a real training process, and what became of the run.

Every scenario ends with the comparison that matters: losses of all steps and every tensor of model, optimizer, loss
memory and weight average against a run that nothing happened to, bit for bit.
"""

import json
import os
import random
import signal
from pathlib import Path

import torch
from processes import TIMEOUT, differences, last_iteration, losses, running, train
from small_disk import fill, small_disk
from tiny_experiment import make_data, make_experiment
from workshop import (
    SLOW,
    Outcome,
    Workshop,
    children,
    command,
    descendants,
    resumed,
    wait_for,
    wait_gone,
    wait_rewound,
    workers,
)

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data.annotations.annotations import load
from cvpods_ext.data.catalog import resolve
from cvpods_ext.engine.checkpoint import INDEX
from cvpods_ext.runtime import files


def killed_at_a_step(shop: Workshop, iteration: int, ranks: int = 1, *overrides: str) -> Outcome:
    """kill -9 of every process after some step, then --resume."""
    output = shop.output("killed")
    with running(shop.experiment, output, *overrides, ranks=ranks, environment=SLOW) as run:
        run.wait_until(iteration)
        run.signal(signal.SIGKILL)
        codes = run.wait()
    assert set(codes) == {-signal.SIGKILL}, codes
    return resumed(shop, output, f"kill -9 of all {ranks} after step {iteration}", "died", *overrides, ranks=ranks)


def one_rank_killed(shop: Workshop, iteration: int = 6) -> Outcome:
    """kill -9 of one of two ranks: the other must not hang."""
    output = shop.output("one")
    with running(shop.experiment, output, ranks=2, environment=SLOW) as run:
        run.wait_until(iteration)
        run.signal(signal.SIGKILL, rank=1)
        codes = run.wait()
    assert codes[1] == -signal.SIGKILL, codes
    assert codes[0] not in (0, -signal.SIGKILL), codes
    return resumed(shop, output, "kill -9 of one rank of two", "the other rank ended by itself", ranks=2)


def killed_in_a_write(shop: Workshop, moment: str, iteration: int = 8) -> Outcome:
    """The process dies at a given moment of writing the checkpoint of `iteration`."""
    output = shop.output("write")
    codes = train(shop.experiment, output, prepare=(die_in_a_write, (moment, iteration)))
    assert codes == [-signal.SIGKILL], codes
    left = {"in the file": bool(list(output.glob(".model_*.tmp"))), "before the index": True, "before the end": True}
    assert left[moment], sorted(os.listdir(output))
    outcome = resumed(shop, output, f"kill -9 while writing a checkpoint, {moment}", "the checkpoint before is used")
    assert not list(output.glob(".model_*.tmp")), "what the killed write left is still there"
    return outcome


def die_in_a_write(moment: str, iteration: int) -> None:
    """Runs in the training process: arrange its death."""
    save, write_text = torch.save, files.write_text

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_save(state, file):
        save(state, file)
        if moment == "in the file" and state["iteration"] == iteration:
            file.flush()
            os.truncate(file.name, file.tell() // 2)
            die()
        if moment == "before the end" and "optimizer" not in state:
            die()

    def dying_write_text(path, text, *remedy):
        if moment == "before the index" and Path(path).name == INDEX and f'"iteration": {iteration}' in text:
            die()
        write_text(path, text, *remedy)

    torch.save, files.write_text = dying_save, dying_write_text


def terminated(shop: Workshop, ranks: int, number: int = signal.SIGTERM, workers: int = 0) -> Outcome:
    """A signal to one rank: all write one checkpoint and stop at the same step. Ctrl-C reaches its readers as well."""
    output = shop.output("term")
    with running(shop.experiment, output, f"data.workers={workers}", ranks=ranks, environment=SLOW) as run:
        run.wait_until(5)
        run.signal(number, rank=ranks - 1)
        if number == signal.SIGINT:
            for reader in children(run.processes[ranks - 1].pid):
                os.kill(reader, number)
        codes = run.wait()
    assert codes == [130] * ranks, (codes, run.log()[-2000:])
    stopped = last_iteration(output)
    newest = json.loads((output / INDEX).read_text())["checkpoints"][-1]["iteration"]
    assert newest == stopped < 12, f"stopped after step {stopped}, but the newest checkpoint is of step {newest}"
    name = signal.Signals(number).name
    happened = f"all stopped after the same step with a checkpoint of it, status 130 ({name})"
    return resumed(shop, output, f"{name} to one rank of {ranks}", happened, ranks=ranks)


def full_disk(shop: Workshop) -> Outcome:
    """The disk of the output folder fills up during the run; a tmpfs where we may mount one."""
    output = shop.output("disk")
    output.mkdir()
    with small_disk(output) as real:
        prepare = None if real else (fill_the_disk_at, (8,))
        with running(shop.experiment, output, environment=SLOW, prepare=prepare) as run:
            run.wait_until(5)
            if real:
                fill(output)
            codes = run.wait()
        assert codes == [2], (codes, run.log()[-2000:])
        assert "cannot write" in run.log()
        assert "continue with --resume" in run.log()
        (output / "junk").unlink(missing_ok=True)
        kind = "tmpfs" if real else "simulated"
        return resumed(shop, output, f"full disk ({kind})", "stopped with status 2 and advice; older checkpoint sound")


def fill_the_disk_at(iteration: int) -> None:
    """Runs in the training process: writing the checkpoint of `iteration` fails half-way."""
    save = torch.save

    def failing_save(state, file):
        if state["iteration"] == iteration:
            file.write(b"half a file")
            raise OSError(28, "No space left on device")
        save(state, file)

    torch.save = failing_save


def truncated_checkpoint(shop: Workshop) -> Outcome:
    """The newest checkpoint is cut short (a copy that was interrupted, a broken disk)."""
    output = shop.output("cut")
    with running(shop.experiment, output, environment=SLOW) as run:
        run.wait_until(9)
        run.signal(signal.SIGKILL)
        run.wait()
    newest = max(output.glob("model_iter_*.pth"))
    os.truncate(newest, newest.stat().st_size - 100)
    outcome = resumed(shop, output, "last checkpoint truncated", "its checksum told; the one before was used")
    log = (output / "log.txt").read_text()
    assert f"{newest.name} is damaged" in log
    return outcome


def corrupt_image(shop: Workshop) -> Outcome:
    """One JPEG is cut short: skipped, listed, and the run repeats exactly with it."""
    folder = shop.root / "corrupt_image"
    data = make_data(folder)
    images = json.loads(data.train.read_text())["images"]
    victim = data.root / "coco" / Path(images[0]["coco_url"]).parent.name / Path(images[0]["coco_url"]).name
    os.truncate(victim, victim.stat().st_size // 3)
    experiment = make_experiment(shop.root / "with_a_corrupt_image", data)
    output = shop.output("image")
    with running(experiment, output, environment=SLOW) as run:
        run.wait_until(6)
        run.signal(signal.SIGKILL)
        run.wait()
    reference = shop.reference(experiment=experiment)
    happened = "skipped, replaced by another image, listed in skipped.rank0.txt; then kill -9 and resume"
    outcome = resumed(shop, output, "corrupt image", happened, experiment=experiment, lost="one unreadable image")
    for run_output in (reference, output):
        lines = (run_output / "skipped.rank0.txt").read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == [str(images[0]["id"])], lines  # once, also after a resume
    return outcome


def corrupt_annotation(shop: Workshop) -> Outcome:
    """Annotations with impossible boxes and polygons: dropped, counted, listed."""
    folder = shop.root / "corrupt_annotation"
    data = make_data(folder)
    content = json.loads(data.train.read_text())
    content["annotations"][0]["segmentation"] = [[1.0, 2.0, 3.0]]
    content["annotations"][1]["bbox"] = [5.0, 5.0, float("nan"), 4.0]
    data.train.write_text(json.dumps(content))
    experiment = make_experiment(shop.root / "with_corrupt_annotations", data)
    output = shop.output("annotation")
    with running(experiment, output, environment=SLOW) as run:
        run.wait_until(6)
        run.signal(signal.SIGKILL)
        run.wait()
    dropped = load(resolve(DatasetFiles(annotations=str(data.train), images=str(data.root)), folder)).dropped_list
    listed = [line.split(",")[0] for line in dropped.read_text().splitlines()[1:]]
    assert listed == [str(annotation["id"]) for annotation in content["annotations"][:2]], listed
    happened = "dropped when the json was parsed, counted in the log and listed; then kill -9 and resume"
    return resumed(shop, output, "corrupt annotations", happened, experiment=experiment, lost="two broken annotations")


def reader_killed(shop: Workshop) -> Outcome:
    """kill -9 of a process that reads images: replaced, the run does not even stop."""
    output = shop.output("reader")
    with running(shop.experiment, output, "data.workers=2", environment=SLOW) as run:
        run.wait_until(3)
        readers = children(run.processes[0].pid)
        assert len(readers) == 2, readers
        os.kill(readers[0], signal.SIGKILL)
        codes = run.wait()
    assert codes == [0], (codes, run.log()[-3000:])
    assert "it is replaced" in run.log()
    happened = "replaced by a new one; the run went on"
    return Outcome("data loader process killed", happened, "nothing", differences(output, shop.reference()), kills=1)


def nan_injected(shop: Workshop, ranks: int = 1) -> Outcome:
    """A loss turns NaN: the run stops before the weights are touched, and writes down the step."""
    output = shop.output("nan")
    batches = 7 * 4 // ranks  # of the first seven steps, in each process
    codes = train(shop.experiment, output, ranks=ranks, environment={"TINY_NAN": f"{ranks - 1}:{batches}"})
    assert 2 in codes, codes
    dumped = list((output / "debug").glob("iter_*"))
    assert [path.name for path in dumped] == ["iter_0000007"]
    assert [path.name for path in dumped[0].glob("batch.rank*.pth")] == [f"batch.rank{ranks - 1}.pth"]
    for tensor in torch.load(dumped[0] / "state.pth")["model"].values():
        assert torch.isfinite(tensor.float()).all(), "the recorded weights are spoiled"
    happened = "stopped with status 2, named iteration, loss and images; step written for pods_debug, weights untouched"
    return resumed(shop, output, f"NaN injected ({ranks} ranks)", happened, ranks=ranks)


def restarted_by_itself(shop: Workshop) -> Outcome:
    """pods_train --num-gpus 2 --max-restarts 2, and one worker is killed twice."""
    output = shop.output("elastic")
    with command(shop, output, "--num-gpus", "2", "--max-restarts", "2") as launcher:
        for iteration in (5, 9):
            wait_for(output, iteration, launcher)
            victim = max(workers(launcher.pid))
            os.kill(victim, signal.SIGKILL)
            wait_gone([victim])
            wait_rewound(output, launcher)
        assert launcher.wait(TIMEOUT) == 0
    found = differences(output, shop.reference(ranks=2))
    return Outcome(
        "a worker of pods_train killed twice", "restarted from the last checkpoint", "nothing", found, kills=2
    )


def launcher_ended(shop: Workshop, number: int) -> Outcome:
    """SIGTERM, Ctrl-C or kill -9 to pods_train itself: workers save where they can, and none is left over."""
    output = shop.output("launcher")
    with command(shop, output, "--num-gpus", "2", "data.workers=1") as launcher:
        wait_for(output, 5, launcher)
        family = descendants(launcher.pid)
        os.kill(launcher.pid, number)
        launcher.wait(TIMEOUT)
        wait_gone(family)
    newest = json.loads((output / INDEX).read_text())["checkpoints"][-1]["iteration"]
    name = signal.Signals(number).name
    assert newest == last_iteration(output), (newest, last_iteration(output))
    happened = f"workers wrote a checkpoint after step {newest} and ended; no process left"
    return resumed(shop, output, f"{name} to the launcher of two", happened, ranks=2)


def random_kills(shop: Workshop, kills: int, ranks: int, seed: int) -> Outcome:
    """kill -9 of one or all processes at random times, again and again, until the run is through."""
    rng = random.Random(seed)
    reference = shop.reference(ranks)
    differs: list[str] = []
    done = runs = 0
    while done < kills:
        runs += 1
        output = shop.output("random")
        while True:
            with running(shop.experiment, output, ranks=ranks, environment=SLOW, resume=True) as run:
                for process in run.processes:
                    process.join(rng.uniform(0.1, 4.0) / ranks)
                if any(process.is_alive() for process in run.processes) and done < kills:
                    run.signal(signal.SIGKILL, rank=rng.choice([None, *range(ranks)]))
                    done += 1
                codes = run.wait()
            if set(codes) == {0}:
                break
        differs += differences(output, reference)
    happened = f"{runs} runs, each resumed until it was through"
    return Outcome(f"kill -9 at random times, {ranks} ranks", happened, "nothing", differs, kills=done)


def resumed_on_other_ranks(shop: Workshop, before: int, after: int) -> tuple[list, list]:
    """Losses of a run that was killed on `before` ranks and resumed on `after`, and of an undisturbed one."""
    experiment = make_experiment(shop.root / "without_memory", shop.data, "SoftmaxCrossEntropy()")
    output = shop.output("ranks")
    with running(experiment, output, ranks=before, environment=SLOW) as run:
        run.wait_until(6)
        run.kill()
    assert train(experiment, output, ranks=after, resume=True) == [0] * after
    both = (output, shop.reference(experiment=experiment))
    return tuple(losses(one) for one in both)

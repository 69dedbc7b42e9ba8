"""Images a second of EVA-02 classifiers beside timm: the same weights, photos, augmentation and optimizer, in turns.

    python benchmarks/classification_speed.py                           EVA-02-Ti at 336 px on a CPU thread
    python benchmarks/classification_speed.py --side 448 --size base --device cuda --images 512 --batch 64 --workers 8

"validate" is a pass of files through network and top-5 accuracy, ours as pods_test makes it without the evaluation that
follows, timm's with the loader and the steps of its validate script. "train" is optimizer steps on augmented crops with
averaged weights, ours by the engine's `Step`, timm's with the loader, optimizer, loss and average of its train script.
timm's scripts are not part of the package, so their loops are written here from its parts. Both sides work in turns, so
that what else the machine does slows both. Writes benchmarks/classification_speed.md.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from timm.utils.metrics import accuracy
from timm.utils.model_ema import ModelEmaV3

from cvpods_ext.config import override
from cvpods_ext.config.bases_classification import EVA02_TI_IN1K
from cvpods_ext.config.classification import CLIP_MEAN, CLIP_STD, ClassificationConfig, ImageFiles
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.data.resilient_loader import ResilientLoader
from cvpods_ext.engine.infer import predict
from cvpods_ext.engine.init_run import build
from cvpods_ext.engine.step import Step
from cvpods_ext.evaluation.classification.scores import to_rows
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.report.table import Cell, Table, to_markdown
from cvpods_ext.runtime.files import write_text
from cvpods_ext.tasks.classification import TASK, classification_config

SIZES = {"tiny": "Ti", "small": "S", "base": "B", "large": "L"}
CLASSES = 10
NET = """
from cvpods_ext.modeling.classification.build import eva02_classifier


def build_model(cfg):
    return eva02_classifier(cfg, {size!r}, num_classes={classes})
"""


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="tiny")
    parser.add_argument("--side", type=int, default=336, help="pixels (default: 336)")
    parser.add_argument("--batch", type=int, default=8, help="images of a batch (default: 8)")
    parser.add_argument("--images", type=int, default=16, help="images of a round (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side (default: 5)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        table = measure(given, Path(folder))
    text = to_markdown(table)
    print(text)
    write_text(Path(__file__).with_suffix(".md"), text + "\n")


def measure(given: argparse.Namespace, folder: Path) -> Table:
    """Both kinds of work on both sides, `rounds` times in turns."""
    photos = write_photos(folder / "photos", given.images)
    experiment = write_experiment(folder / "ours", given, photos)
    device = torch.device(given.device)
    theirs = timm.create_model(f"eva02_{given.size}_patch14_{given.side}", num_classes=CLASSES, drop_path_rate=0.1)
    torch.save(theirs.state_dict(), folder / "weights.pth")
    model, state = build(experiment, TASK, device, fresh=False)
    report = load_into(state.model, read(folder / "weights.pth"), "weights.pth")
    assert not report.missing, report.summary()
    assert not report.skipped, report.summary()
    theirs = theirs.to(device)
    rows = []
    work = {
        "validate": (our_validation(experiment, state.model, device), their_validation(theirs, given, photos)),
        "train": (
            our_training(experiment, Step(model, state, experiment.config, device), given),
            their_training(theirs, classification_config(experiment), given, photos),
        ),
    }
    for name, sides in work.items():
        seconds = rounds(sides, given.rounds, device)
        ours, other = (given.images / statistics.median(one) for one in seconds)
        ratios = [b / a for a, b in zip(*seconds, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append(
            (
                Cell(name),
                Cell(f"{ours:.2f}"),
                Cell(f"{other:.2f}"),
                Cell(f"{statistics.median(ratios):.2f}"),
                Cell(spread),
            )
        )
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {given.threads} thread"
    return Table(
        title=f"EVA-02-{SIZES[given.size]} at {given.side} px, batches of {given.batch}, images a second",
        header=("work", "ours", "timm", "ours / timm", "range of the rounds"),
        rows=tuple(rows),
        notes=(
            f"{where}; {given.rounds} rounds of {given.images} images in turns, medians",
            f"{given.workers} loader processes",
            f"torch {torch.__version__}, timm {timm.__version__}; float32, photos of 500 x 375 pixels",
        ),
    )


def rounds(sides: tuple[Callable[[], None], ...], count: int, device: torch.device) -> tuple[list[float], ...]:
    """Seconds of every round of both sides, which take turns; one round before is not counted."""
    seconds: tuple[list[float], ...] = tuple([] for _ in sides)
    for k in range(count + 1):
        for side, spent in zip(sides, seconds, strict=True):
            started = time.perf_counter()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if k:
                spent.append(time.perf_counter() - started)
    return seconds


def write_photos(folder: Path, count: int) -> Path:
    """Smooth noise as JPEGs, one folder per class."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class_{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=90)
    return folder


def write_experiment(folder: Path, given: argparse.Namespace, photos: Path) -> Experiment:
    """The recipe of EVA-02-Ti on these photos."""
    folder.mkdir()
    (folder / "config.py").write_text(
        "from cvpods_ext.config.bases_classification import EVA02_TI_IN1K\nconfig = EVA02_TI_IN1K\n"
    )
    (folder / "net.py").write_text(NET.format(size=SIZES[given.size], classes=CLASSES))
    loaded = load_experiment(folder)
    files = ImageFiles(images=str(photos))
    config = override(
        EVA02_TI_IN1K,
        data=dict(train=files, test=files, image_side=given.side, workers=given.workers),
        model=dict(init="none"),
        schedule=dict(
            batch_size=given.batch, images_per_device=given.batch, iters=1000, warmup_iters=1, precision="fp32"
        ),
        test=dict(images_per_batch=given.batch, every=0),
        keep_best="",
    )
    return Experiment(loaded.folder, replace(config, folder=str(loaded.folder)))


def our_validation(experiment: Experiment, model: torch.nn.Module, device: torch.device) -> Callable[[], None]:
    """Files to rows of scores."""

    def validate() -> None:
        model.eval()
        batches = TASK.test_batches(experiment, 0, 1, ())
        for prediction in predict(TASK, model, batches, device):
            to_rows(prediction)

    return validate


def their_validation(model: torch.nn.Module, given: argparse.Namespace, photos: Path) -> Callable[[], None]:
    """The steps of timm's validate script."""
    data: Any = create_dataset("", root=str(photos), is_training=False)

    def validate() -> None:
        model.eval()
        loader = create_loader(
            data,
            input_size=(3, given.side, given.side),
            batch_size=given.batch,
            use_prefetcher=False,
            interpolation="bicubic",
            mean=tuple(value / 255 for value in CLIP_MEAN),
            std=tuple(value / 255 for value in CLIP_STD),
            num_workers=given.workers,
            crop_pct=1.0,
            persistent_workers=False,
        )
        with torch.inference_mode():
            for images, labels in loader:
                logits = model(images.to(given.device))
                accuracy(logits, labels.to(given.device), topk=(1, 5))

    return validate


def our_training(experiment: Experiment, step: Step, given: argparse.Namespace) -> Callable[[], None]:
    """Steps of the engine."""
    batches = ResilientLoader(lambda start: TASK.training_batches(experiment, step.state.model, start), 0, 1)
    numbers = itertools.count()

    def train() -> None:
        step.state.model.train()
        for _ in range(given.images // given.batch):
            step.run(next(numbers), 1e-4, batches, stop=False)

    return train


def their_training(
    model: torch.nn.Module, config: ClassificationConfig, given: argparse.Namespace, photos: Path
) -> Callable[[], None]:
    """The steps of timm's train script."""
    schedule = config.schedule
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=1e-4, weight_decay=schedule.weight_decay, layer_decay=schedule.layer_decay
    )
    loss, average = LabelSmoothingCrossEntropy(config.model.smoothing), ModelEmaV3(model, decay=schedule.ema_decay)
    batches = endless(given, config, photos)

    def train() -> None:
        model.train()
        for _ in range(given.images // given.batch):
            images, labels = next(batches)
            optimizer.zero_grad()
            loss(model(images.to(given.device)), labels.to(given.device)).backward()
            optimizer.step()
            average.update(model)

    return train


def endless(
    given: argparse.Namespace, config: ClassificationConfig, photos: Path
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented batches of timm's loader, epoch after epoch."""
    data: Any = create_dataset("", root=str(photos), is_training=True)
    loader = create_loader(
        data,
        input_size=(3, given.side, given.side),
        batch_size=given.batch,
        is_training=True,
        use_prefetcher=False,
        scale=config.data.crop_area,
        hflip=config.data.flip_probability,
        auto_augment=config.data.auto_augment,
        interpolation="bicubic",
        mean=tuple(value / 255 for value in CLIP_MEAN),
        std=tuple(value / 255 for value in CLIP_STD),
        num_workers=given.workers,
        persistent_workers=False,
    )
    while True:
        yield from loader


if __name__ == "__main__":
    main()

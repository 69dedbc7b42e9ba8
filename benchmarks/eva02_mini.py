"""EVA-02 in small on two CPU cores, from masked image modelling to rows of the table, by the commands of a user.

    python benchmarks/eva02_mini.py --keep benchmarks/eva02_mini    everything: pre-train, train, test, compare
    python benchmarks/eva02_mini.py --only-pretrain mim.pth         the file that model.init=mim.pth starts from

As the authors do, a transformer with patches of 14 pixels fills in hidden patches of unlabelled pictures; its file,
with the names of theirs, starts a detector with patches of 16. They predict features of CLIP, here it is pixels. The
second row of the table starts from scratch.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.cli import mini_runs
from cvpods_ext.cli.jobs import command
from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.data.detection_loader import training_batches
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.backbones.vit import NORM_EPS, resize_positions
from cvpods_ext.runtime.files import atomic_path

EXPERIMENT = "cascade_mask_rcnn.eva02_mini.sfp64.box.128.fed.ema"
SIZE = Size(96, 4, 3)  # of the experiment
PATCH, GRID = 14, 8  # pictures of 112 pixels
HIDDEN = 0.4  # share of patches
BATCH = 32


class MaskedImageModel(nn.Module):
    """A transformer that predicts the pixels of hidden patches, each normalised by its own mean and deviation.

    Shapes: B = images, G = rows and columns of patches, P = patch side in pixels, C = width.
    """

    def __init__(self, size: Size = SIZE) -> None:
        super().__init__()
        everywhere = range(size.depth)
        side = PATCH * GRID
        self.net = eva02_of(
            size, image_side=side, window=GRID, global_blocks=everywhere, patch=PATCH, pretrained_grid=GRID
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.norm = nn.LayerNorm(size.width, eps=NORM_EPS)
        self.lm_head = nn.Linear(size.width, 3 * PATCH**2)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Normalised images (B, 3, G * P, G * P), hidden patches (B, G, G) bool -> mean squared error, a scalar."""
        tokens = torch.where(hidden[..., None], self.mask_token, self.net.patch_embed(images))
        tokens = tokens + resize_positions(self.net.pos_embed, (GRID, GRID))
        for block in self.net.blocks:
            tokens = block(tokens)
        predicted = self.lm_head(self.norm(tokens[hidden]))
        pixels = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2)[hidden.flatten(1)]
        return F.mse_loss(predicted, F.layer_norm(pixels, pixels.shape[-1:]))

    def published_state(self) -> dict[str, Tensor]:
        """The tensors of a file of masked image modelling: bare names, one rotary table, tokens, a last norm."""
        trunk = {name: value for name, value in self.net.state_dict().items() if "rope" not in name}
        table = {f"rope.{name}": value for name, value in self.net.get_submodule("rope_glb").state_dict().items()}
        rest = {name: value for name, value in self.state_dict().items() if not name.startswith("net.")}
        return {**trunk, **table, **rest, "cls_token": torch.zeros_like(self.mask_token)}


def pictures(config: DetectionConfig, folder: Path) -> Iterator[Tensor]:
    """Endless batches (B, 3, G * P, G * P) of the experiment's training pictures, normalised, zero where they end."""
    side = PATCH * GRID
    settings = override(
        config,
        data=dict(sampler="uniform", lsj_side=side, lsj_range=(1.0, 1.5)),
        schedule=dict(batch_size=BATCH, images_per_device=BATCH),
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.model.pixel_mean, config.model.pixel_std))
    for batch in training_batches(settings, folder):
        normalised = [(image - mean) / std for image in batch.images]
        yield torch.stack([F.pad(x, (0, side - x.shape[2], 0, side - x.shape[1])) for x in normalised])


def pretrain(config: DetectionConfig, folder: Path, steps: int) -> MaskedImageModel:
    """A model after `steps` steps on the pictures that the experiment in `folder` trains on."""
    torch.manual_seed(config.seed)
    model = MaskedImageModel()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    for step, images in zip(range(1, steps + 1), pictures(config, folder), strict=False):
        loss = model(images, torch.rand(len(images), GRID, GRID) < HIDDEN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            logging.info("masked image modelling, step %d of %d: error %.3f of the variance", step, steps, loss.item())
    return model


def save(model: MaskedImageModel, path: Path) -> None:
    """Write the file that `model.init` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save({"model": model.published_state()}, temporary)
    logging.info("wrote %s", path)


def kept(output: Path, keep: Path | None) -> Path:
    """The folder with the results of a run: its own, or the copy below `keep`."""
    if keep is None:
        return output
    (keep / output.name).mkdir(parents=True, exist_ok=True)
    shutil.copy(output / mini_runs.RESULTS, keep / output.name)
    return keep / output.name


def main() -> None:
    """Pre-train, train twice, test, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of masked image modelling (default: 400)")
    parser.add_argument("--only-pretrain", type=Path, metavar="FILE", help="write the pre-training file and stop")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the results files and the table there")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change config keys of both runs")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = mini_runs.mini_folder() / EXPERIMENT
    target = given.only_pretrain or folder / "outputs" / "pretrained.pth"
    config = load_experiment(folder).config
    assert isinstance(config, DetectionConfig)
    save(pretrain(config, folder, given.steps), target)
    if given.only_pretrain:
        return
    results = []
    for name, init in (("pretrained", os.path.relpath(target, folder)), ("scratch", "none")):
        where = ("--dir", str(folder), "--device", "cpu")
        settings = (f"output=outputs/{name}", f"model.init={init}", *given.overrides)
        command("train", *where, *settings)
        command("test", *where, *settings)
        results.append(kept(folder / "outputs" / name, given.keep))
    mini_runs.show(results, given.keep / "table.md" if given.keep else None)


if __name__ == "__main__":
    main()

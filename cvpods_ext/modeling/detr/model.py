"""DINO (https://arxiv.org/abs/2203.03605): a transformer whose queries are the detections. Boxes only.

Shapes: N = images, H, W = rows and columns of the padded batch, K = denoising queries, Q = queries, D = layers of the
decoder, C = classes, E = width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.backbones.resnet import ResNet
from cvpods_ext.modeling.detection.anchor_matching import pad_targets
from cvpods_ext.modeling.detection.postprocess import RawDetections, finish_all
from cvpods_ext.modeling.detr.boxes import to_centres
from cvpods_ext.modeling.detr.criterion import Criterion
from cvpods_ext.modeling.detr.denoising import Denoising, DenoisingSettings, make_denoising
from cvpods_ext.modeling.detr.matcher import Objects, Predictions
from cvpods_ext.modeling.detr.neck import ChannelMapper
from cvpods_ext.modeling.detr.position import levels_of
from cvpods_ext.modeling.detr.postprocess import BestPairs
from cvpods_ext.modeling.detr.queries import refine
from cvpods_ext.modeling.detr.transformer import MLP, Decoded, Dimensions, ExtraQueries, Memory, Transformer
from cvpods_ext.modeling.images import normalize_and_pad
from cvpods_ext.modeling.necks.pyramid import Pyramid
from cvpods_ext.structures import Batch, Detections, Targets

_FIRST_SCORE = 0.01  # of every class before training


class DINO(nn.Module):
    """Images in, losses or detections out; normalises and pads by itself."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Pyramid | ResNet,
        neck: ChannelMapper,
        num_classes: int,
        dimensions: Dimensions,
        criterion: Criterion,
        denoising: DenoisingSettings,
        selection: BestPairs,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.num_classes, self.denoising, self.selection = num_classes, denoising, selection
        width, count = dimensions.width, dimensions.decoder_layers + 1  # the last pair of heads serves the proposals
        self.class_embed = _copies(_class_head(width, num_classes), count)
        self.bbox_embed = _copies(_box_head(width), count)
        self.transformer = Transformer(dimensions, self.class_embed, self.bbox_embed)
        self.transformer.reset_parameters()
        self.label_enc = nn.Embedding(num_classes, width)
        self.criterion = criterion
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[Detections]:
        """Scalar losses by name in training, else the detections of every image in its original pixels."""
        if self.training:
            return self.losses(batch)
        return finish_all(self.detect(batch), batch.targets)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See `Criterion`; random numbers come from the generator of the device."""
        memory, image_sizes = self.encode(batch.images)
        objects = objects_of(batch.targets, image_sizes)
        denoising = make_denoising(
            [one.labels for one in batch.targets],
            [boxes[:count] for boxes, count in zip(objects.boxes, objects.counts, strict=True)],
            self.num_classes,
            self.denoising,
        )
        proposals = self.transformer.propose(memory)
        extra = self.extra_queries(denoising, proposals.boxes.shape[1])
        logits, boxes = self.predict(self.transformer.decode(memory, proposals, extra))
        count = extra.content.shape[1]
        denoised = Predictions(logits[:, :, :count], boxes[:, :, :count])
        predictions = Predictions(
            torch.cat((logits[:, :, count:], proposals.logits[None])),
            torch.cat((boxes[:, :, count:], proposals.boxes[None])),
        )
        return self.criterion(predictions, denoised, denoising, objects, batch.targets)

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[RawDetections]:
        """Detections in network pixels, still on the device; `finish` makes them final, in any thread."""
        memory, image_sizes = self.encode(batch.images)
        decoded = self.transformer.decode(memory, self.transformer.propose(memory))
        last = Decoded(decoded.states[-1:], decoded.references[-1:])
        logits, boxes = self.predict(last, first_layer=len(decoded.states) - 1)
        scores = self.criterion.classification_loss.scores(logits[0].float())
        return self.selection(scores, boxes[0], image_sizes)

    def encode(self, images: Sequence[Tensor]) -> tuple[Memory, Tensor]:
        """Images (3, h, w) -> encoded tokens, and the sizes (N, 4) = width, height, width, height in pixels."""
        padded, image_sizes = normalize_and_pad(images, self.pixel_mean, self.pixel_std, self.backbone.padded_size)
        maps = self.neck(self.backbone(padded))
        levels = levels_of(image_sizes, _size(padded), [_size(map_) for map_ in maps])
        return self.transformer.encode(maps, levels), image_sizes

    def extra_queries(self, denoising: Denoising, queries: int) -> ExtraQueries:
        """The queries that start at noised objects; empty slots have the content 0."""
        content = self.label_enc(denoising.labels) * denoising.filled[..., None]
        return ExtraQueries(content, denoising.box_logits.sigmoid(), denoising.blocked(queries))

    def predict(self, decoded: Decoded, first_layer: int = 0) -> Predictions:
        """Class logits and boxes of decoder layers from `first_layer` on."""
        logits, boxes = [], []
        for layer, (states, references) in enumerate(
            zip(decoded.states, decoded.references, strict=True), start=first_layer
        ):
            logits.append(self.class_embed[layer](states))
            boxes.append(refine(self.bbox_embed[layer], states, references))
        return Predictions(torch.stack(logits), torch.stack(boxes))


def objects_of(targets: Sequence[Targets], image_sizes: Tensor) -> Objects:
    """Ground truth in the coordinates of the transformer; image_sizes (N, 4) = width, height, width, height."""
    truth = pad_targets(targets)
    boxes = to_centres(truth.boxes / image_sizes[:, None])
    return Objects(truth.labels, boxes, tuple(len(target) for target in targets))


def _copies(head: nn.Module, count: int) -> nn.ModuleList:
    """Heads that start equal."""
    return nn.ModuleList(copy.deepcopy(head) for _ in range(count))


def _class_head(width: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(width, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - _FIRST_SCORE) / _FIRST_SCORE))
    return head


def _box_head(width: int) -> MLP:
    """The first boxes are the references themselves."""
    head = MLP(width, width, width, 4)
    for parameter in head.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return head


def _size(map_: Tensor) -> tuple[int, int]:
    return map_.shape[-2], map_.shape[-1]

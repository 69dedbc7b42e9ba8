"""Encoder and decoder of DINO (https://arxiv.org/abs/2203.03605), parameter names of detrex.

All layers normalise after adding. Dropout is 0, as in the published models.
Shapes: N = images, T = tokens of all levels, L = levels, Q = queries, D = layers of the decoder, E = width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.detr.attention import DeformableAttention, SelfAttention
from cvpods_ext.modeling.detr.position import Levels, sine_map, sine_of_boxes
from cvpods_ext.modeling.detr.queries import Proposals, anchor_logits, best_tokens, refine, take_rows


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """How large the transformer is; see `config.detection.QueryDetector` for the published values."""

    width: int
    heads: int
    hidden: int  # of the feed-forward layers
    encoder_layers: int
    decoder_layers: int
    levels: int
    points: int  # that a head looks at on each level
    queries: int


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers, without the identity; the nesting is that of published names."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(width, hidden), nn.ReLU()), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E)."""
        return self.layers(x)


@dataclass(frozen=True)
class Memory:
    """Tokens (N, T, E) that queries look at; `padding` (N, T) is true outside the images."""

    tokens: Tensor
    padding: Tensor
    levels: Levels


class EncoderLayer(nn.Module):
    """Tokens attend to tokens."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        attention = DeformableAttention(dimensions.width, dimensions.heads, dimensions.levels, dimensions.points)
        self.attentions = nn.ModuleList([attention])
        self.ffns = nn.ModuleList([FeedForward(dimensions.width, dimensions.hidden)])
        self.norms = nn.ModuleList(nn.LayerNorm(dimensions.width) for _ in range(2))

    def forward(self, memory: Memory, position: Tensor, references: Tensor) -> Tensor:
        """Memory, (N, T, E), (N, T, L, 2) -> (N, T, E); tokens in the padding are computed as well."""
        x = memory.tokens
        x = x + self.attentions[0](x + position, references, x, memory.padding, memory.levels.sizes)
        x = self.norms[0](x)
        return self.norms[1](x + self.ffns[0](x))


class Encoder(nn.Module):
    """Layers over the tokens of all levels."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dimensions) for _ in range(dimensions.encoder_layers))

    def forward(self, memory: Memory, position: Tensor) -> Memory:
        """`position` (N, T, E) is added to what asks, in every layer."""
        references = memory.levels.reference_points()
        for layer in self.layers:
            memory = Memory(layer(memory, position, references), memory.padding, memory.levels)
        return memory


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to the memory."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        across = DeformableAttention(dimensions.width, dimensions.heads, dimensions.levels, dimensions.points)
        self.attentions = nn.ModuleList([SelfAttention(dimensions.width, dimensions.heads), across])
        self.ffns = nn.ModuleList([FeedForward(dimensions.width, dimensions.hidden)])
        self.norms = nn.ModuleList(nn.LayerNorm(dimensions.width) for _ in range(3))

    def forward(
        self, content: Tensor, position: Tensor, references: Tensor, memory: Memory, blocked: Tensor | None
    ) -> Tensor:
        """(N, Q, E), (N, Q, E), (N, Q, L, 4), Memory, (Q, Q) bool or None -> (N, Q, E)."""
        x = self.norms[0](content + self.attentions[0](content, position, blocked))
        attended = self.attentions[1](x + position, references, memory.tokens, memory.padding, memory.levels.sizes)
        x = self.norms[1](x + attended)
        return self.norms[2](x + self.ffns[0](x))


@dataclass(frozen=True)
class Decoded:
    """States (D, N, Q, E) after each layer, and the boxes (D, N, Q, 4) that its own prediction is relative to.

    The first are the initial references; the others carry gradients into the layer before ("look forward twice").
    """

    states: Tensor
    references: Tensor


class Decoder(nn.Module):
    """Layers that refine the boxes of their queries from one to the next.

    `class_embed` and `bbox_embed` are the model's heads, one per layer and one for the proposals; published files hold
    them under this name as well.
    """

    def __init__(self, dimensions: Dimensions, class_embed: nn.ModuleList, bbox_embed: nn.ModuleList) -> None:
        super().__init__()
        self.features = dimensions.width // 2  # of the sine encoding, per coordinate
        self.layers = nn.ModuleList(DecoderLayer(dimensions) for _ in range(dimensions.decoder_layers))
        self.ref_point_head = MLP(4 * self.features, dimensions.width, dimensions.width)
        self.norm = nn.LayerNorm(dimensions.width)
        self.class_embed, self.bbox_embed = class_embed, bbox_embed

    def forward(self, content: Tensor, references: Tensor, memory: Memory, blocked: Tensor | None = None) -> Decoded:
        """Contents (N, Q, E) and boxes (N, Q, 4); `blocked` (Q, Q) bool, true where a row must not see a column."""
        ratios = memory.levels.valid_ratios.repeat(1, 1, 2)[:, None]
        states, used = [], []
        current = references
        for i, layer in enumerate(self.layers):
            used.append(references)
            boxes = current[:, :, None] * ratios  # of every level's padded map
            position = self.ref_point_head(sine_of_boxes(boxes[:, :, 0], self.features))
            content = layer(content, position, boxes, memory, blocked)
            states.append(self.norm(content))
            if i + 1 < len(self.layers):
                references = refine(self.bbox_embed[i], content, current)
                current = references.detach()
        return Decoded(torch.stack(states), torch.stack(used))


class Transformer(nn.Module):
    """From maps to decoded queries; the proposals of its tokens start the queries."""

    def __init__(self, dimensions: Dimensions, class_embed: nn.ModuleList, bbox_embed: nn.ModuleList) -> None:
        super().__init__()
        self.queries = dimensions.queries
        self.level_embeds = nn.Parameter(torch.empty(dimensions.levels, dimensions.width))
        self.tgt_embed = nn.Embedding(dimensions.queries, dimensions.width)
        self.enc_output = nn.Linear(dimensions.width, dimensions.width)
        self.enc_output_norm = nn.LayerNorm(dimensions.width)
        self.encoder = Encoder(dimensions)
        self.decoder = Decoder(dimensions, class_embed, bbox_embed)

    def reset_parameters(self) -> None:
        """Initial values of everything but the heads."""
        heads = {id(p) for part in (self.decoder.class_embed, self.decoder.bbox_embed) for p in part.parameters()}
        for parameter in self.parameters():
            if parameter.dim() > 1 and id(parameter) not in heads:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()
        nn.init.normal_(self.level_embeds)

    def encode(self, maps: Sequence[Tensor], levels: Levels) -> Memory:
        """Maps (N, E, H, W) of every level -> tokens that have seen each other."""
        tokens = torch.cat([map_.flatten(2).transpose(1, 2) for map_ in maps], dim=1)
        position = torch.cat(
            [
                sine_map(mask, map_.shape[1]).flatten(2).transpose(1, 2) + embedding
                for mask, map_, embedding in zip(levels.padding, maps, self.level_embeds, strict=True)
            ],
            dim=1,
        )
        return self.encoder(Memory(tokens, levels.flat_padding, levels), position)

    def propose(self, memory: Memory) -> Proposals:
        """The best tokens and their boxes; with fewer tokens than queries there are as many queries as tokens.

        Gradients flow through the tokens that are chosen only, so the choice itself is made without.
        """
        anchors = anchor_logits(memory.levels)
        usable = memory.tokens.masked_fill(anchors[..., :1].isinf(), 0.0)
        class_head, box_head = self.decoder.class_embed[-1], self.decoder.bbox_embed[-1]
        with torch.no_grad():
            index = best_tokens(class_head(self.project(usable)), self.queries)
        states = self.project(take_rows(usable, index))
        boxes = (box_head(states) + take_rows(anchors, index)).sigmoid()
        return Proposals(class_head(states), boxes, states, index)

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens of the memory as the proposals read them, (..., E) -> (..., E)."""
        return self.enc_output_norm(self.enc_output(tokens))

    def decode(self, memory: Memory, proposals: Proposals, extra: ExtraQueries | None = None) -> Decoded:
        """The queries of each image, behind the `extra` ones: query i starts at the box of the i-th best token."""
        references = proposals.boxes.detach()
        content = self.tgt_embed.weight[: references.shape[1]].expand(len(references), -1, -1)
        if extra is None:
            return self.decoder(content, references, memory)
        content = torch.cat((extra.content, content), dim=1)
        references = torch.cat((extra.boxes, references), dim=1)
        return self.decoder(content, references, memory, extra.blocked)


@dataclass(frozen=True)
class ExtraQueries:
    """K queries that training puts before the others: content (N, K, E), boxes (N, K, 4), blocked (K + Q, K + Q)."""

    content: Tensor
    boxes: Tensor
    blocked: Tensor

"""The plain ViT against timm's segment-anything encoder, which has the same windows and relative positions."""

from functools import partial

import pytest
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from cvpods_ext.modeling.backbones.vit import Block, RelativeAttention, ViT, mae_vit


def randomised(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@torch.no_grad()
def test_windows_and_relative_positions_equal_timm():
    """A grid of 6 x 6 tokens and windows of 4, so that windows are padded."""
    settings = dict(use_rel_pos=True, window_size=4, global_attn_indexes=(1,), use_abs_pos=True)
    theirs = VisionTransformerSAM(
        img_size=96, patch_size=16, embed_dim=32, depth=3, num_heads=2, num_classes=0, neck_chans=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), **settings,
    )  # fmt: skip
    theirs.neck = nn.Identity()  # a last norm, which ViTDet does not have
    randomised(theirs)
    ours = mae_vit(32, 3, 2, image_side=96, window=4, global_blocks=(1,), drop_path=0.0).eval()
    state = dict(theirs.state_dict())
    # the same grid without class token: the table is taken as it is
    state["pos_embed"] = torch.cat((torch.zeros(1, 1, 32), state["pos_embed"].flatten(1, 2)), dim=1)
    ours.pos_embed = nn.Parameter(torch.zeros(1, 37, 32))
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours(images), theirs.forward_features(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(5, 5), (3, 5)])
def test_relative_attention_equals_the_table_of_all_pairs(height, width):
    attention = randomised(RelativeAttention(8, 2, 5))
    tokens = torch.randn(2, height, width, 8)
    query, key, value = attention.qkv(tokens).view(2, height * width, 3, 2, 4).permute(2, 0, 3, 1, 4)
    logits = query @ key.transpose(2, 3) / 2
    rows = torch.nn.functional.interpolate(attention.rel_pos_h.T[None], size=2 * height - 1, mode="linear")[0].T
    columns = torch.nn.functional.interpolate(attention.rel_pos_w.T[None], size=2 * width - 1, mode="linear")[0].T
    for i in range(height * width):
        for j in range(height * width):
            vertical, horizontal = i // width - j // width + height - 1, i % width - j % width + width - 1
            logits[:, :, i, j] += query[:, :, i] @ (rows[vertical] + columns[horizontal])
    expected = (logits.softmax(-1) @ value).transpose(1, 2).reshape(2, height, width, 8)
    torch.testing.assert_close(attention(tokens), attention.proj(expected), rtol=1e-4, atol=1e-5)


def test_it_has_the_parameter_names_and_sizes_of_published_vitdet():
    with torch.device("meta"):
        model = mae_vit()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["pos_embed"] == (1, 197, 768)
    assert shapes["blocks.0.attn.rel_pos_h"] == (27, 64)
    assert shapes["blocks.2.attn.rel_pos_w"] == (127, 64)
    assert shapes["blocks.0.attn.qkv.weight"] == (2304, 768)
    assert shapes["blocks.11.mlp.fc2.weight"] == (768, 3072)
    assert len(shapes) == 3 + 12 * 14


def test_stochastic_depth_skips_a_branch_for_a_whole_image_and_keeps_its_mean():
    class Ones(nn.Module):
        def forward(self, tokens):
            return torch.ones_like(tokens)

    block = Block(1, Ones(), Ones(), window=0, drop_path=0.25).train()
    torch.manual_seed(0)
    out = block(torch.zeros(4000, 2, 2, 1))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    share = 1 / 0.75  # a branch that is kept weighs more
    counts = (out[:, 0, 0, 0] / share).round()
    assert set(counts.tolist()) == {0.0, 1.0, 2.0}
    assert (counts == 1).float().mean().item() == pytest.approx(2 * 0.75 * 0.25, abs=0.03)  # branches draw on their own
    assert out.mean().item() == pytest.approx(2, abs=0.05)


def test_a_trunk_without_blocks_is_patches_plus_positions():
    model = ViT(4, [], image_side=32, pretrained_grid=2)
    images = torch.randn(1, 3, 32, 32)
    expected = model.patch_embed.proj(images) + model.pos_embed[:, 1:].view(1, 2, 2, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(model(images), expected)

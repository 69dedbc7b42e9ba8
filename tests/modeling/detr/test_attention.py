import pytest
import torch
from dino_attention import grid_sample_levels

from cvpods_ext.modeling.detr.attention import DeformableAttention, sample_levels

SIZES = ((6, 5), (3, 3), (1, 2))
TOKENS = sum(rows * columns for rows, columns in SIZES)


def inputs(seed=0, queries=7, heads=2, width=3, points=2, dtype=torch.float64):
    """Locations reach beyond the maps on all sides."""
    rng = torch.Generator().manual_seed(seed)
    value = torch.randn(2, TOKENS, heads, width, generator=rng, dtype=dtype)
    locations = torch.rand(2, queries, heads, len(SIZES), points, 2, generator=rng, dtype=dtype) * 1.8 - 0.4
    weights = torch.rand(2, queries, heads, len(SIZES), points, generator=rng, dtype=dtype)
    return [x.requires_grad_() for x in (value, locations, weights)]


def test_sampling_equals_grid_sample_with_its_gradients():
    ours, theirs = inputs(), inputs()
    fast = sample_levels(ours[0], SIZES, *ours[1:])
    slow = grid_sample_levels(theirs[0], SIZES, *theirs[1:])
    assert torch.allclose(fast, slow, atol=1e-12)
    seed = torch.linspace(-1, 1, fast.numel(), dtype=fast.dtype).view(fast.shape)
    for mine, other in zip(torch.autograd.grad(fast, ours, seed), torch.autograd.grad(slow, theirs, seed), strict=True):
        assert mine.abs().max() > 0
        assert torch.allclose(mine, other, atol=1e-12)


def test_gradients_of_sampling_are_those_of_finite_differences():
    value, locations, weights = inputs(queries=2, points=1, width=2)
    assert torch.autograd.gradcheck(lambda *x: sample_levels(x[0], SIZES, *x[1:]), (value, locations, weights))


def test_without_gradients_sampling_gives_the_same():
    value, locations, weights = inputs()
    with torch.no_grad():
        quiet = sample_levels(value, SIZES, locations, weights)
    assert torch.equal(quiet, sample_levels(value, SIZES, locations, weights))


def test_samples_by_hand_at_a_centre_between_cells_and_outside():
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)  # a map of 2 x 2
    places = [(0.25, 0.25), (0.5, 0.5), (0.0, 0.25), (-0.3, 0.25), (float("nan"), 0.5)]
    locations = torch.tensor(places).view(1, 5, 1, 1, 1, 2)
    output = sample_levels(value, [(2, 2)], locations, torch.ones(1, 5, 1, 1, 1))
    # the mean of all four; half outside; wholly outside; what is no number lies outside
    assert output.flatten().tolist() == pytest.approx([1.0, 2.5, 0.5, 0.0, 0.0])


def test_half_precision_is_summed_in_full():
    value, locations, weights = (x.detach().float() for x in inputs())
    full = sample_levels(value.bfloat16().float(), SIZES, locations, weights)
    assert torch.equal(sample_levels(value.bfloat16(), SIZES, locations, weights), full)


def attention():
    torch.manual_seed(0)
    module = DeformableAttention(8, 4, len(SIZES), 3)
    module.reset_parameters()
    return module


def test_an_untrained_layer_looks_one_step_further_per_point():
    module = attention()
    offsets = module.sampling_offsets.bias.view(4, len(SIZES), 3, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for point in range(3):
        assert torch.allclose(offsets[:, 0, point], expected * (point + 1), atol=1e-6)
        assert torch.allclose(offsets[:, 2, point], expected * (point + 1), atol=1e-6)
    weights = module.attention_weights(torch.randn(1, 5, 8))
    assert torch.equal(weights, torch.zeros_like(weights))


def test_tokens_in_the_padding_are_not_seen():
    module = attention()
    tokens, query = torch.randn(2, TOKENS, 8), torch.randn(2, 5, 8)
    references = torch.rand(2, 5, len(SIZES), 2)
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[:, 3:20] = True
    seen = module(query, references, tokens, padding, SIZES)
    changed = torch.where(padding[..., None], torch.full_like(tokens, 1e3), tokens)
    assert torch.equal(module(query, references, changed, padding, SIZES), seen)
    assert not torch.allclose(module(query, references, changed, torch.zeros_like(padding), SIZES), seen)


def test_offsets_are_cells_around_a_point_and_shares_of_a_box():
    """One head, one point, offset (1, 0.5), on a ramp that tells where it was read."""
    module = DeformableAttention(2, 1, 1, 1)
    module.reset_parameters()
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.5]))
        for layer in (module.value_proj, module.output_proj):
            layer.weight.copy_(torch.eye(2))
    rows, columns = 10, 20
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    tokens = torch.stack((x, y), dim=-1).view(1, -1, 2)
    padding = torch.zeros(1, rows * columns, dtype=torch.bool)
    query = torch.zeros(1, 1, 2)
    point = module(query, torch.tensor([0.4, 0.5]).view(1, 1, 1, 2), tokens, padding, [(rows, columns)])
    assert point.flatten().tolist() == pytest.approx([0.4 + 1 / columns, 0.5 + 0.5 / rows], abs=1e-6)
    box = module(query, torch.tensor([0.4, 0.5, 0.2, 0.4]).view(1, 1, 1, 4), tokens, padding, [(rows, columns)])
    assert box.flatten().tolist() == pytest.approx([0.4 + 0.5 * 0.2, 0.5 + 0.5 * 0.5 * 0.4], abs=1e-6)

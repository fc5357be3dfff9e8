"""The adapters against plain formulas and invariances."""

import math

import pytest
import torch
from torch import nn

from model.config import E2LLMConfig
from model.pma import Adapter, MLPAdapter, PMAdapter, TokenFeedForward, build_adapter
from utils.common_utils import UserError


def randomised(adapter: nn.Module) -> nn.Module:
    """Give every parameter a value that matters, so that no term of the formula hides at its start."""
    torch.manual_seed(1)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.3)
    return adapter


def reference_pool(adapter: PMAdapter, hidden_Lh: torch.Tensor, scaling: str) -> torch.Tensor:
    """The formula of the Set Transformer for one unpadded chunk, head by head and query by query."""
    width, heads = hidden_Lh.shape[1], adapter.num_heads
    size = width // heads
    divisor = math.sqrt(size if scaling == "head" else width)
    queries, keys, values = adapter.query(adapter.seeds), adapter.key(hidden_Lh), adapter.value(hidden_Lh)
    rows = []
    for seed, query in zip(adapter.seeds, queries, strict=True):
        parts = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = torch.stack([query[part] @ key[part] for key in keys]) / divisor
            weights = scores.exp() / scores.exp().sum()
            parts.append(sum(weight * value[part] for weight, value in zip(weights, values, strict=True)))
        inner = adapter.norm0(seed + adapter.output(torch.cat(parts)))
        rows.append(
            adapter.norm1(inner + torch.relu(inner @ adapter.feed_forward.weight.T + adapter.feed_forward.bias))
        )
    return torch.stack(rows)


@pytest.mark.parametrize("scaling", ["head", "model"])
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_pma_agrees_with_the_formula(scaling, num_seeds):
    adapter = randomised(PMAdapter(24, 16, num_seeds, 0.1, num_heads=4, scaling=scaling)).double()
    hidden = torch.randn(5, 9, 24, dtype=torch.float64)
    lengths = [9, 1, 4, 7, 2]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    pooled = adapter.pool(hidden, mask)
    assert pooled.shape == (5, num_seeds, 24)
    for chunk, length in enumerate(lengths):
        expected = reference_pool(adapter, hidden[chunk, :length], scaling)
        torch.testing.assert_close(pooled[chunk], expected, atol=1e-6, rtol=0)  # its softmax is in float32


def test_the_two_scalings_differ():
    first, second = (randomised(PMAdapter(24, 16, 1, 0.1, num_heads=4, scaling=s)) for s in ("head", "model"))
    hidden, mask = torch.randn(2, 5, 24), torch.ones(2, 5, dtype=torch.bool)
    assert not torch.allclose(first.pool(hidden, mask), second.pool(hidden, mask), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_padding_says_nothing_and_all_padding_is_finite(dtype):
    adapter = PMAdapter(24, 16, 2, 0.1, num_heads=4).to(dtype)
    hidden, mask = torch.randn(3, 6, 24).to(dtype), torch.zeros(3, 6, dtype=torch.bool)
    mask[1, :2] = mask[2, :5] = True
    tokens = adapter(hidden, mask)
    assert torch.isfinite(tokens).all()
    changed = hidden.clone()
    changed[~mask] = 30.0
    torch.testing.assert_close(adapter(changed, mask), tokens)


@pytest.mark.parametrize("summary", ["first_token", "mean"])
def test_mlp_adapters_ignore_padding(summary):
    adapter = randomised(MLPAdapter(24, 16, 1, 0.1, summary))
    hidden, mask = torch.randn(2, 6, 24), torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    tokens = adapter(hidden, mask)
    assert tokens.shape == (2, 1, 16)
    alone = adapter(hidden[1:, :3], mask[1:, :3])
    torch.testing.assert_close(tokens[1:], alone)
    changed = hidden.clone()
    changed[1, 1] += 1.0
    moved = (adapter(changed, mask)[1] - tokens[1]).abs().max()
    assert (moved > 1e-4) == (summary == "mean")


def test_projection_starts_at_the_spread_of_the_embeddings():
    torch.manual_seed(0)
    adapter = PMAdapter(96, 64, 1, embedding_std=0.07)
    tokens = adapter(torch.randn(200, 5, 96), torch.ones(200, 5, dtype=torch.bool))
    assert tokens.std().item() == pytest.approx(0.07, rel=0.1)


def test_a_step_of_the_optimizer_moves_the_chunk_tokens_alike_whatever_the_spread_of_the_embeddings():
    moved = []
    for embedding_std in (0.02, 0.5):
        torch.manual_seed(0)
        adapter = PMAdapter(96, 64, 1, embedding_std)
        hidden, mask = torch.randn(50, 5, 96), torch.ones(50, 5, dtype=torch.bool)
        before = adapter(hidden, mask)
        before.square().sum().backward()
        torch.optim.AdamW(adapter.parameters(), lr=1e-4, eps=0.0, weight_decay=0.0).step()
        moved.append(((adapter(hidden, mask) - before).norm() / before.norm()).item())
    assert moved[0] == pytest.approx(moved[1], rel=0.01)
    assert moved[0] < 0.1


def test_fit_projection_is_ridge_regression():
    torch.manual_seed(0)
    adapter = PMAdapter(8, 6, 1, embedding_std=0.2, num_heads=2)
    pooled, target = torch.randn(300, 8) * torch.linspace(0.5, 4, 8) + 3, torch.randn(300, 6)
    target += pooled @ torch.randn(8, 6)
    explained = adapter.fit_projection(pooled, target, ridge=0.05)
    centred, wanted = (pooled - pooled.mean(0)) / pooled.std(0), target - target.mean(0)
    # The same problem as least squares with the penalty as extra rows.
    stacked = torch.cat([centred, math.sqrt(0.05 * 300) * torch.eye(8)])
    solution = torch.linalg.lstsq(stacked, torch.cat([wanted, torch.zeros(8, 6)])).solution
    fitted = centred @ solution
    output = adapter.project(pooled)
    scale = 0.2 / fitted.square().mean().sqrt()
    torch.testing.assert_close(output.mean(0), target.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(output - output.mean(0), fitted * scale, atol=1e-4, rtol=0)
    assert explained == pytest.approx(1 - ((wanted - fitted) ** 2).sum().item() / (wanted**2).sum().item(), abs=1e-4)
    assert explained > 0.5


def bags_of_words(num_words: int, width: int, decoder_width: int):
    """Chunks of random words as the vectors of their words, with a mask, and the mean of the words' other vectors."""
    torch.manual_seed(0)
    words, vectors = torch.randn(num_words, width), torch.randn(num_words, decoder_width)
    ids, mask = torch.randint(num_words, (800, 6)), torch.arange(6) < torch.randint(2, 7, (800, 1))
    target = (vectors[ids] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return words[ids], mask, target


def adapter_with(feed_forward: int, width: int) -> Adapter:
    layers = [0, -1] if feed_forward else [-1]
    config = E2LLMConfig("e", "d", pma_heads=4, adapter_feed_forward=feed_forward, adapter_width=width)
    config.encoder_layers = layers
    return build_adapter(config, encoder_width=16, decoder_width=24, embedding_std=0.1)


def means(adapter: Adapter, hidden, mask):
    """Features averaged over each chunk."""
    return adapter.part_features(hidden, mask, torch.zeros(mask.shape, dtype=torch.long))[:, 0]


@pytest.mark.parametrize("width", [24, 12, 40])
def test_feed_forward_tells_more_words_apart_than_the_encoder_is_wide(width):
    hidden, mask, target = bags_of_words(60, 16, 24)
    plain, adapter = adapter_with(0, 0), adapter_with(128, width)
    both_layers = torch.cat([hidden, torch.randn_like(hidden)], dim=-1)
    with torch.no_grad():
        linear = plain.fit_projection(plain.pooled(hidden, mask)[:, 0], target, 1e-3)
        adapter.feed_forward_in.fit(means(adapter, both_layers, mask), target, 1e-3)
        fitted = adapter.fit_projection(adapter.pooled(both_layers, mask)[:, 0], target, 1e-3)
        tokens = adapter(both_layers, mask)
    assert linear < 0.5
    # Twelve directions hold about half of the variance of twenty-four.
    assert fitted > (0.4 if width < 24 else 0.8)
    assert tokens.shape == (800, 1, 24)
    assert tokens.std(0).square().mean().sqrt().item() == pytest.approx(0.1, rel=0.1)


def test_fitted_feed_forward_maps_the_mean_to_the_target():
    hidden, mask, target = bags_of_words(20, 16, 24)
    layer = TokenFeedForward(16, 1, 24, 128)
    adapter = adapter_with(128, 24)
    adapter.feed_forward_in = layer
    layer.fit(means(adapter, hidden, mask), target, 1e-6)
    with torch.no_grad():
        mapped = layer(hidden)
    mean = (mapped * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(mean, target, atol=0.02, rtol=0)


@pytest.mark.parametrize("feed_forward", [0, 128])
def test_several_chunk_tokens_start_on_parts_of_their_own(feed_forward):
    """Chunks of words in thirds, the hidden states telling a token's word and, beside it, its third."""
    torch.manual_seed(0)
    config = E2LLMConfig("e", "d", pma_heads=4, num_chunk_tokens=3, adapter_feed_forward=feed_forward)
    adapter = build_adapter(config, encoder_width=40, decoder_width=24, embedding_std=0.1)
    words, vectors = torch.randn(30, 37), torch.randn(30, 24)
    ids, mask = torch.randint(30, (600, 9)), torch.arange(9) < torch.randint(6, 10, (600, 1))
    part = torch.where(mask, torch.arange(9) * 3 // mask.sum(1, keepdim=True), -1)
    part[:, 0] = -1  # a special token
    hidden = torch.cat([words[ids], 2.0 * (part[..., None] == torch.arange(3)).float()], dim=-1)
    member = ((part[:, None] == torch.arange(3)[:, None]) & mask[:, None]).float()
    target = member @ vectors[ids] / member.sum(-1, keepdim=True)
    with torch.no_grad():
        if feed_forward:
            features = adapter.part_features(hidden, mask, part)
            adapter.feed_forward_in.fit(features.flatten(0, 1), target.flatten(0, 1), 1e-3, num_spare=3)
        adapter.fit_parts(adapter.token_features(hidden)[mask], part[mask], 1e-3, sharpness=12.0)
        pooled = adapter.pooled(hidden, mask)
        explained = adapter.fit_projection(pooled.flatten(0, 1), target.flatten(0, 1), 1e-3)
        # Another word in a part changes that part's chunk token and hardly the others.
        changed = hidden.clone()
        changed[:, 5, :37] = words[(ids[:, 5] + 1) % 30]
        moved = (adapter(changed, mask) - adapter(hidden, mask)).norm(dim=-1)
    own = part[:, 5]
    of_others = moved.clone()
    of_others[torch.arange(600), own] = 0.0
    assert explained > (0.9 if feed_forward else 0.6)
    assert moved[torch.arange(600), own].mean() > 20 * of_others.sum(1).mean() / 2


def test_a_part_without_tokens_has_the_mean_of_the_chunk():
    adapter = PMAdapter(8, 6, 2, 0.1, num_heads=2)
    hidden, mask = torch.randn(1, 4, 8), torch.tensor([[True, True, True, False]])
    first, second = adapter.part_features(hidden, mask, torch.tensor([[-1, 0, 0, -1]]))[0]
    torch.testing.assert_close(first, hidden[0, 1:3].mean(0))
    torch.testing.assert_close(second, hidden[0, :3].mean(0))


def test_more_chunk_tokens_than_a_head_is_wide_are_refused():
    adapter = PMAdapter(8, 6, 3, 0.1, num_heads=4)
    with pytest.raises(UserError, match=r"model.num_chunk_tokens=3: more than a head is wide \(8 / 4\)"):
        adapter.fit_parts(torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1]), 1e-3, 10.0)


def test_feed_forward_starts_on_the_first_layer_alone_and_learns_from_all():
    layer = TokenFeedForward(16, 2, 24, 32)
    hidden = torch.randn(3, 5, 32)
    changed = hidden.clone()
    changed[..., 16:] += 1.0
    torch.testing.assert_close(layer.features(changed)[..., 32:], layer.features(hidden)[..., 32:])
    layer(hidden).square().sum().backward()
    assert layer.up.weight.grad[:, 16:].abs().sum() > 0


def test_impossible_adapters_are_refused():
    with pytest.raises(UserError, match=r"model.pma_heads=7: .*24.*\[1, 2, 3, 4, 6, 8, 12, 24\]"):
        PMAdapter(24, 16, 1, 0.1, num_heads=7)
    with pytest.raises(UserError, match="model.num_chunk_tokens=2"):
        MLPAdapter(24, 16, 2, 0.1, "mean")
    with pytest.raises(UserError, match="model.adapter_width=32: only a feed-forward layer"):
        adapter_with(0, 32)

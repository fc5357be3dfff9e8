"""The adapter's start in closed form, from pieces of real text.

Shape suffixes: M texts, K chunk tokens a text, L encoder tokens a text, n decoder tokens of one text, d decoder width,
w width of pooling, F features (`Adapter.token_features`), N samples of a regression, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import nn

from model.pro_model import E2LLM
from utils.common_utils import UserError
from utils.tokenization import pad_chunks

PART_SHARPNESS = 3.5
"""Nats by which a chunk token's attention to its own part of the chunk stands out: 80 to 90 % of it then lies there,
with two or four chunk tokens a chunk of the demo. More would let single tokens of the part outweigh the others."""
NUM_TOKENS_FOR_PARTS = 25_000
"""Encoder tokens that tell the attention which part of a chunk a token lies in."""


@torch.no_grad()
def fit_adapter(model: E2LLM, texts: list[str], ridge: float, rarity: float) -> float:
    """Start the adapter so that a text's chunk tokens are means of the decoder's input embeddings of its tokens.

    The text has K equal parts by characters, one for each chunk token; with K = 1 the part is all of it. In the mean of
    a part a token weighs `rarity / (rarity + p)` with p its share of the texts (Arora et al., 2017): else the words
    that every text has would drown those that tell one from another.

    Args:
        ridge: as in `ridge_regression`.

    Returns:
        The share of the targets' variance that the fitted map explains.

    Raises:
        UserError: hardly a text fits the encoder's window, or the adapter cannot have as many chunk tokens.
    """
    piece_ids, pieces = model.chunk_tokenizer(texts)
    texts = [text for text, count in zip(texts, pieces, strict=True) if count == 1]
    piece_ids = [ids for ids, count in zip(piece_ids, _repeat(pieces), strict=True) if count == 1]
    if len(texts) < 2:
        raise UserError("adapter_init.num_texts: fewer than two chunks fit the encoder's window; lower the chunk size")
    chunks = pad_chunks(piece_ids, model.encoder_tokenizer.pad_token_id)
    ids_ML, mask_ML = (tensor.to(model.device) for tensor in chunks)
    part_ML = encoder_parts(model, texts, ids_ML.shape[1]).to(model.device)
    target_Nd = part_embeddings(model, texts, rarity).flatten(0, 1)
    adapter = model.chunk_encoder.adapter
    num_parts = adapter.num_chunk_tokens
    if adapter.feed_forward_in is not None:
        features_MKF = _collect(model, ids_ML, mask_ML, adapter.part_features, part_ML)
        num_spare = num_parts if num_parts > 1 else 0
        adapter.feed_forward_in.fit(features_MKF.flatten(0, 1), target_Nd, ridge, num_spare)
    if num_parts > 1:
        some = slice(0, max(1, int((mask_ML.sum(1).cumsum(0) <= NUM_TOKENS_FOR_PARTS).sum())))
        adapter.fit_parts(*_single_tokens(model, ids_ML[some], mask_ML[some], part_ML[some]), ridge, PART_SHARPNESS)
    pooled_Nw = _collect(model, ids_ML, mask_ML, adapter.pooled).flatten(0, 1)
    return adapter.fit_projection(pooled_Nw, target_Nd, ridge)


def _collect(
    model: E2LLM,
    ids_ML: torch.Tensor,
    mask_ML: torch.Tensor,
    read: Callable[..., torch.Tensor],
    *of_chunks: torch.Tensor,
) -> torch.Tensor:
    """Return what `ChunkEncoder.collect` does, in float32.

    Each call is an autocast of its own: one that lasts keeps its copies of the weights, and would go on with those of
    before the fit.
    """
    with model.resolved_compute.autocast():
        return model.chunk_encoder.collect(ids_ML, mask_ML, read, *of_chunks).float()


def encoder_parts(model: E2LLM, texts: list[str], num_positions: int) -> torch.Tensor:
    """Return for every encoder token which part of its text it lies in [M, L]; -1 for padding and for special tokens
    (but for a single part, which is all of the text)."""
    num_parts = model.config.num_chunk_tokens
    part_ML = torch.full((len(texts), num_positions), -1)
    encoded = model.encoder_tokenizer(texts, return_offsets_mapping=True, return_special_tokens_mask=True)
    for row, text in enumerate(texts):
        spans, special = encoded["offset_mapping"][row], encoded["special_tokens_mask"][row]
        for place, (span, is_special) in enumerate(zip(spans, special, strict=True)):
            if num_parts == 1 or not is_special:
                part_ML[row, place] = _part_of(span, len(text), num_parts)
    return part_ML


def part_embeddings(model: E2LLM, texts: list[str], rarity: float) -> torch.Tensor:
    """Return what a text's chunk tokens start as [M, K, d]: the decoder's input embeddings of the tokens in each part,
    rare ones weighing more, so that the mean of the parts is that of the text. A part without tokens has that too.

    A part is not divided by its own weights: a pooled vector is linear in its tokens, and cannot tell whether a word
    stands alone among frequent ones.
    """
    num_parts = model.config.num_chunk_tokens
    token_ids = [torch.tensor(model.formatter.answer_ids(text)[:-1], device=model.device) for text in texts]
    counts_V = torch.bincount(torch.cat(token_ids))
    weights_V = rarity / (rarity + counts_V / counts_V.sum())
    embedding = model.decoder.get_input_embeddings()
    parts_K1 = torch.arange(num_parts, device=model.device)[:, None]
    means = []
    for text, ids_n in zip(texts, token_ids, strict=True):
        spans = model.formatter.answer_spans(text)[:-1]
        part_n = torch.tensor([_part_of(span, len(text), num_parts) for span in spans], device=model.device)
        member_Kn = part_n == parts_K1
        is_empty_K1 = ~member_Kn.any(-1, keepdim=True)
        weight_n = weights_V[ids_n] / weights_V[ids_n].sum()
        weight_Kn = torch.where(is_empty_K1, 1.0, num_parts * member_Kn) * weight_n
        means.append(weight_Kn @ embedding(ids_n).float())
    return torch.stack(means)


def _single_tokens(
    model: E2LLM, ids_ML: torch.Tensor, mask_ML: torch.Tensor, part_ML: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features [N, F] and parts [N] of the real tokens of all texts."""
    longest = int(mask_ML.sum(1).max())

    def padded_features(hidden_mLh: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        features_mLF = model.chunk_encoder.adapter.token_features(hidden_mLh)
        return nn.functional.pad(features_mLF, (0, 0, 0, longest - features_mLF.shape[1]))

    features_MLF = _collect(model, ids_ML, mask_ML, padded_features)
    is_real_ML = mask_ML[:, :longest].bool()
    return features_MLF[is_real_ML], part_ML[:, :longest][is_real_ML]


def _repeat(counts: list[int]) -> list[int]:
    return [count for count in counts for _ in range(count)]


def _part_of(span: tuple[int, int], length: int, num_parts: int) -> int:
    """Return in which of `num_parts` equal parts of a text of `length` characters the middle of a span lies."""
    return min(num_parts - 1, num_parts * sum(span) // (2 * max(1, length)))

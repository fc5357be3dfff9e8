"""The closed-form start of the adapter, on whole models."""

import dataclasses

import pytest
import torch

from model.adapter_start import encoder_parts, fit_adapter, part_embeddings
from tests.conftest import build_model, corpus
from utils.common_utils import UserError
from utils.tokenization import pad_chunks


@pytest.mark.parametrize(
    ("num_chunk_tokens", "feed_forward", "dtype"),
    [(1, 0, "float32"), (3, 0, "float32"), (3, 256, "float32"), (3, 256, "bfloat16")],
)
def test_chunk_tokens_start_near_the_words_of_their_part(model_config, num_chunk_tokens, feed_forward, dtype):
    config = dataclasses.replace(
        model_config,
        num_chunk_tokens=num_chunk_tokens,
        adapter_feed_forward=feed_forward,
        adapter_width=48 if feed_forward else 0,
        encoder_layers=[0, -1] if feed_forward else [-1],
    )
    model = build_model(config, dtype=dtype, attn_implementation="eager").eval()
    texts = sorted(set(corpus(400)))
    targets = part_embeddings(model, texts, 1e-3)
    assert targets.shape == (len(texts), num_chunk_tokens, 48)
    explained = fit_adapter(model, texts, ridge=1e-3, rarity=1e-3)
    chunks = pad_chunks(model.chunk_tokenizer(texts)[0], model.encoder_tokenizer.pad_token_id)
    with torch.no_grad(), model.resolved_compute.autocast():
        tokens = model.chunk_encoder(*chunks).float()
    similar = torch.nn.functional.cosine_similarity(tokens - tokens.mean((0, 1)), targets - targets.mean((0, 1)), -1)
    assert explained > (0.8 if feed_forward else 0.15)
    assert similar.mean() > (0.8 if feed_forward else 0.35)


def test_parts_are_equal_in_characters_for_both_tokenizers(model_config):
    model = build_model(dataclasses.replace(model_config, num_chunk_tokens=2))
    text = "Ada lives in" + " Oslo" * 3
    (parts,) = encoder_parts(model, [text], 40).tolist()
    ids = model.encoder_tokenizer(text)["input_ids"]
    assert parts[0] == parts[len(ids) - 1] == -1 and set(parts[len(ids) :]) == {-1}
    names = model.encoder_tokenizer.convert_ids_to_tokens(ids)
    assert {part for part, name in zip(parts, names, strict=False) if name.lower() == "oslo"} == {1}
    assert parts[1 : len(ids) - 1] == sorted(parts[1 : len(ids) - 1])
    embedding = model.decoder.get_input_embeddings().weight[list(model.formatter.answer_ids(text)[:-1])]
    in_second = torch.tensor([sum(span) >= len(text) for span in model.formatter.answer_spans(text)[:-1]])
    first, second = part_embeddings(model, [text], rarity=1e6)[0]
    torch.testing.assert_close(first, 2 * embedding[~in_second].sum(0) / len(embedding))
    torch.testing.assert_close(second, 2 * embedding[in_second].sum(0) / len(embedding))


def test_texts_beyond_the_window_are_left_out(model_config):
    model = build_model(model_config)
    with pytest.raises(UserError, match="fewer than two chunks fit the encoder's window"):
        fit_adapter(model, ["Ada lives in Rome. " * 60] * 3, 1e-3, 1e-3)

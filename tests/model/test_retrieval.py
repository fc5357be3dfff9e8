"""Sentence vectors: the mean of the base encoder's hidden states, pieces of a long text together."""

import torch

from model.retrieval import embed_texts
from tests.conftest import corpus


def plain_vector(model, text: str) -> torch.Tensor:
    """The mean over the tokens of a text, piece by piece, one at a time."""
    pieces, _ = model.chunk_tokenizer([text])
    with torch.no_grad():
        hidden = [model.chunk_encoder.backbone(torch.tensor([ids])).last_hidden_state[0] for ids in pieces]
    mean = torch.cat(hidden).mean(0)
    return mean / mean.norm()


def test_vectors_are_normalised_means(model):
    texts = [corpus()[0], " ".join(corpus()[:12]), corpus()[1]]
    assert model.chunk_tokenizer(texts)[1][1] > 1, "one of them is to exceed the encoder's window"
    vectors = embed_texts(model, texts)
    for vector, text in zip(vectors, texts, strict=True):
        torch.testing.assert_close(vector, plain_vector(model, text), atol=1e-5, rtol=1e-5)
    assert embed_texts(model, []).shape == (0, 32)


def test_base_weights_leave_lora_out_for_a_while(model):
    texts = corpus()[:3]
    trained = embed_texts(model, texts)
    with model.base_weights():
        base = embed_texts(model, texts)
    assert not torch.allclose(base, trained)
    assert torch.equal(embed_texts(model, texts), trained)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    torch.testing.assert_close(embed_texts(model, texts), base)

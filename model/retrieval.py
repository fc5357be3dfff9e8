"""Which chunks of a context are nearest to a prompt, by the encoder's own sentence vectors.

Shape suffixes: n texts, m pieces of one micro-batch, L encoder tokens, h encoder width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from model.encoder_model_bert import plan_micro_batches
from model.generation import CHUNKS_AT_ONCE
from utils.tokenization import pad_chunks

if TYPE_CHECKING:
    from model.pro_model import E2LLM


@torch.inference_mode()
def embed_texts(model: "E2LLM", texts: Sequence[str]) -> torch.Tensor:
    """Return the mean of each text's last hidden states in the encoder, scaled to length 1: [n, h] in float32 on the
    processor. A text longer than the encoder's window is read in pieces, their tokens counting alike."""
    vectors = [_embed(model, texts[start : start + CHUNKS_AT_ONCE]) for start in range(0, len(texts), CHUNKS_AT_ONCE)]
    width = model.chunk_encoder.backbone.config.hidden_size
    return torch.cat(vectors) if vectors else torch.zeros(0, width)


def _embed(model: "E2LLM", texts: Sequence[str]) -> torch.Tensor:
    piece_ids, counts = model.chunk_tokenizer(texts)
    ids_ML, mask_ML = pad_chunks(piece_ids, model.encoder_tokenizer.pad_token_id)
    text_M = torch.arange(len(texts)).repeat_interleave(torch.tensor(counts))
    sum_nh = torch.zeros(len(texts), model.chunk_encoder.backbone.config.hidden_size)
    lengths_M = mask_ML.sum(1)
    for index_m in plan_micro_batches(lengths_M, model.chunk_encoder.token_budget):
        longest = int(lengths_M[index_m].max())
        ids_mL, mask_mL = ids_ML[index_m, :longest].to(model.device), mask_ML[index_m, :longest].to(model.device)
        with model.resolved_compute.autocast():
            hidden_mLh = model.chunk_encoder.backbone(input_ids=ids_mL, attention_mask=mask_mL).last_hidden_state
        sum_mh = (hidden_mLh.float() * mask_mL[..., None]).sum(1)
        sum_nh.index_add_(0, text_M[index_m], sum_mh.cpu())
    # Of a mean and a sum only the length differs.
    return torch.nn.functional.normalize(sum_nh, dim=-1)

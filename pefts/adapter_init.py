"""How the adapter starts."""

import logging

import numpy as np

from dataset.batch_plan import PseudoRandomPermutation
from dataset.store import ChunkStore
from model.adapter_start import fit_adapter
from model.pro_model import E2LLM
from pefts.e2llm_args import TrainConfig

logger = logging.getLogger(__name__)


def initialise_adapter(model: E2LLM, store: ChunkStore, config: TrainConfig) -> None:
    """Start the adapter as `config.adapter_init` says."""
    options = config.adapter_init
    if options.method == "ridge":
        texts = sample_chunks(store, options.num_texts, config.seed)
        logger.info("fitting the adapter on %d chunks", len(texts))
        explained = fit_adapter(model, texts, options.ridge, options.rarity)
        logger.info("the projection explains %.0f %% of the variance of the chunks' mean embeddings", 100 * explained)


def sample_chunks(store: ChunkStore, count: int, seed: int) -> list[str]:
    """Draw chunks evenly from all contexts of a store; the same ones for the same seed."""
    ends = np.cumsum(store.num_chunks)
    total = int(ends[-1])
    chosen = PseudoRandomPermutation(total, seed, "adapter_init")(np.arange(min(count, total)))
    contexts = np.searchsorted(ends, chosen, side="right")
    firsts = chosen - (ends[contexts] - store.num_chunks[contexts])
    return [
        store.context_chunks(context, first, first + 1)[0]
        for context, first in zip(contexts.tolist(), firsts.tolist(), strict=True)
    ]

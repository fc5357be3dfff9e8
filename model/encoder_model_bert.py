"""The text encoder: chunks in, chunk tokens out, in micro-batches of bounded size.

Shape suffixes: M chunks, m chunks of one micro-batch, L encoder tokens, K chunk tokens a chunk, h and d the widths of
encoder and decoder.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from model.pma import Adapter
from utils.common_utils import UserError

logger = logging.getLogger(__name__)


def plan_micro_batches(lengths_M: torch.Tensor, token_budget: int) -> Iterator[torch.Tensor]:
    """Group chunks of similar length so that each group, padded to its longest, stays within a budget.

    Args:
        lengths_M: number of real tokens of every chunk.
        token_budget: padded tokens a group may hold; a single longer chunk still makes a group of its own.

    Yields:
        Indices of the chunks of a group, longest chunks first.
    """
    order_M = torch.argsort(lengths_M, descending=True, stable=True)
    lengths = lengths_M.tolist()
    start = 0
    while start < len(order_M):
        longest = max(1, lengths[order_M[start]])
        size = max(1, token_budget // longest)
        yield order_M[start : start + size]
        start += size


class ChunkEncoder(nn.Module):
    """A Hugging Face text encoder (with or without LoRA) followed by an adapter.

    Args:
        backbone: any encoder whose output has `last_hidden_state` and, for other layers than the last, `hidden_states`.
        adapter: maps hidden states [m, L, h] to chunk tokens [m, K, d].
        layers: whose hidden states stand side by side in h; 0 is the embeddings, -1 the last layer.
        token_budget: padded encoder tokens of one micro-batch; bounds the memory, changes nothing else.
        recompute: in training, keep only the chunk tokens of each micro-batch and run its forward pass again in the
            backward pass (the gradient caching of arXiv 2101.06983, here by activation checkpointing), so that memory
            does not grow with the number of chunks.
    """

    def __init__(
        self,
        backbone: nn.Module,
        adapter: Adapter,
        token_budget: int,
        recompute: bool = False,
        layers: Sequence[int] = (-1,),
    ):
        super().__init__()
        num_layers = backbone.config.num_hidden_layers
        if any(not -num_layers - 1 <= layer <= num_layers for layer in layers):
            raise UserError(
                f"model.encoder_layers={list(layers)}: the encoder has {num_layers} layers; name 0 (its embeddings) to "
                f"{num_layers}, or -1 for the last"
            )
        self.backbone = backbone
        self.adapter = adapter
        self.layers = list(layers)
        self.token_budget = token_budget
        self.recompute = recompute
        self.agree_on_micro_batches: Callable[[int], int] | None = None
        """Makes of this process's number of micro-batches that of all, where processes must call the encoder equally
        often."""

    def forward(self, chunk_ids_ML: torch.Tensor, chunk_mask_ML: torch.Tensor) -> torch.Tensor:
        """Encode chunks.

        Args:
            chunk_ids_ML: token ids, padded on the right.
            chunk_mask_ML: 1 (or True) on real tokens.

        Returns:
            Chunk tokens [M, K, d], in the order of the input.
        """
        lengths_M = chunk_mask_ML.sum(1)
        parts, order = [], []
        for index_m in self._micro_batches(lengths_M):
            longest = int(lengths_M[index_m].max())
            ids_mL, mask_mL = chunk_ids_ML[index_m, :longest], chunk_mask_ML[index_m, :longest]
            if self.recompute and torch.is_grad_enabled():
                parts.append(checkpoint(self._encode, ids_mL, mask_mL, use_reentrant=False))
            else:
                parts.append(self._encode(ids_mL, mask_mL))
            order.append(index_m)
        if not parts:
            projection = self.adapter.projection
            return projection.weight.new_zeros(0, self.adapter.num_chunk_tokens, projection.out_features)
        # Chunks encoded again, to be as many micro-batches as elsewhere, come last and are left out.
        inverse_M = torch.argsort(torch.cat(order)[: len(lengths_M)])
        return torch.cat(parts)[inverse_M]

    def _micro_batches(self, lengths_M: torch.Tensor) -> list[torch.Tensor]:
        groups = list(plan_micro_batches(lengths_M, self.token_budget))
        if self.agree_on_micro_batches:
            groups += [groups[-1][-1:]] * (self.agree_on_micro_batches(len(groups)) - len(groups))
        return groups

    def _encode(self, ids_mL: torch.Tensor, mask_mL: torch.Tensor) -> torch.Tensor:
        return self.adapter(*self._hidden(ids_mL, mask_mL))

    def _hidden(self, ids_mL: torch.Tensor, mask_mL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.layers == [-1]:
            hidden_mLh = self.backbone(input_ids=ids_mL, attention_mask=mask_mL).last_hidden_state
        else:
            output = self.backbone(input_ids=ids_mL, attention_mask=mask_mL, output_hidden_states=True)
            hidden_mLh = torch.cat([output.hidden_states[layer] for layer in self.layers], dim=-1)
        return hidden_mLh, mask_mL.bool()

    def freeze_unread(self) -> None:
        """Train no weight of the encoder that the hidden states read do not depend on: LoRA in higher layers, or in a
        pooling head.

        Without a gradient such a weight would have no state of the optimizer to resume from, and DDP waits for it.
        """
        trained = [weight for weight in self.backbone.parameters() if weight.requires_grad]
        ids_11 = torch.zeros(1, 1, dtype=torch.long, device=self.adapter.projection.weight.device)
        hidden_11h, _ = self._hidden(ids_11, torch.ones_like(ids_11))
        gradients = [None] * len(trained)
        if hidden_11h.requires_grad:
            gradients = torch.autograd.grad(hidden_11h.sum(), trained, allow_unused=True)
        for weight, gradient in zip(trained, gradients, strict=True):
            weight.requires_grad_(gradient is not None)

    @torch.no_grad()
    def collect(
        self,
        chunk_ids_ML: torch.Tensor,
        chunk_mask_ML: torch.Tensor,
        summary: Callable[..., torch.Tensor],
        *of_tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Return what `summary` makes of the hidden states [m, L, h], the mask [m, L] and, where given, what else is
        known `of_tokens` [M, L], of all chunks, [M, K, ...].

        Shows its progress where this module's messages are shown.
        """
        lengths_M = chunk_mask_ML.sum(1)
        groups = list(plan_micro_batches(lengths_M, self.token_budget))
        parts = []
        for index_m in tqdm(groups, "encoding chunks", leave=False, disable=not logger.isEnabledFor(logging.INFO)):
            longest = int(lengths_M[index_m].max())
            ids_mL, mask_mL, *others = (
                rows_ML[index_m, :longest] for rows_ML in (chunk_ids_ML, chunk_mask_ML, *of_tokens)
            )
            parts.append(summary(*self._hidden(ids_mL, mask_mL), *others))
        return torch.cat(parts)[torch.argsort(torch.cat(groups))]

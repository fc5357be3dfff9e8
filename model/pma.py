"""Adapters: from the encoder's hidden states of a chunk to its K chunk tokens in the decoder's embedding space.

Shape suffixes: M chunks, L encoder tokens a chunk, K seeds (chunk tokens a chunk), h encoder width, d decoder width,
A attention heads, e = h / A.
"""

import torch
from torch import nn

from utils.common_utils import UserError


class Adapter(nn.Module):
    """Pool a chunk's hidden states to K vectors (`pool`), then project them to the decoder's width (`projection`).

    A subclass defines `pool`. The projection starts so that its output has the spread of the decoder's own input
    embeddings; `fit_projection` replaces this start by a closed-form one.
    """

    def __init__(self, encoder_width: int, decoder_width: int, num_chunk_tokens: int, embedding_std: float):
        super().__init__()
        self.num_chunk_tokens = num_chunk_tokens
        self.projection = nn.Linear(encoder_width, decoder_width)
        # `pool` ends in a LayerNorm, so its output has unit variance and the projection's has h * std(weight)**2.
        nn.init.normal_(self.projection.weight, std=embedding_std / encoder_width**0.5)
        nn.init.zeros_(self.projection.bias)

    def pool(self, hidden_MLh: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """Return the pooled vectors [M, K, h]; `mask_ML` is True on real tokens."""
        raise NotImplementedError

    def forward(self, hidden_MLh: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """Return the chunk tokens [M, K, d]."""
        return self.projection(self.pool(hidden_MLh, mask_ML))

    @torch.no_grad()
    def fit_projection(
        self, pooled_Nh: torch.Tensor, target_Nd: torch.Tensor, ridge: float, target_std: float
    ) -> float:
        """Set the projection to the ridge regression of `target_Nd` on `pooled_Nh`, rescaled to spread `target_std`.

        Args:
            pooled_Nh: outputs of `pool` for N pieces of text.
            target_Nd: what each should map to, e.g. the mean of the decoder's input embeddings of its tokens.
            ridge: regulariser per sample: the normal equations get `ridge * N` on their diagonal.
            target_std: standard deviation that the projection's output is rescaled to.

        Returns:
            The share of the targets' variance that the map explains before rescaling.
        """
        x_Nh, y_Nd = pooled_Nh.double(), target_Nd.double()
        x_mean_h, y_mean_d = x_Nh.mean(0), y_Nd.mean(0)
        x_Nh, y_Nd = x_Nh - x_mean_h, y_Nd - y_mean_d
        gram_hh = x_Nh.T @ x_Nh + ridge * len(x_Nh) * torch.eye(x_Nh.shape[1], dtype=x_Nh.dtype, device=x_Nh.device)
        weight_hd = torch.linalg.solve(gram_hh, x_Nh.T @ y_Nd)
        fitted_Nd = x_Nh @ weight_hd
        explained = 1 - (y_Nd - fitted_Nd).square().sum() / y_Nd.square().sum()
        scale = target_std / fitted_Nd.std()
        self.projection.weight.copy_((weight_hd * scale).T)
        self.projection.bias.copy_(y_mean_d - (x_mean_h @ weight_hd) * scale)
        return explained.item()


class PMAdapter(Adapter):
    """Pooling by multi-head attention (Set Transformer, arXiv 1810.00825, eq. 11) with K learned seeds S.

    `O = S + MHA(S, H)`, `Y = LN1(LN0(O) + ReLU(LN0(O) W + b))`; padding is masked, a chunk of nothing but padding
    yields the seeds alone. Value and output projections start at the identity and the seeds small, so that attention
    starts out as a mean over the chunk's tokens.

    Args:
        scaling: divisor of the attention scores: `"head"` sqrt(h / A), as in Transformers; `"model"` sqrt(h), as in the
            Set Transformer's published code.

    Raises:
        UserError: the width is not divisible by the number of heads.
    """

    def __init__(
        self,
        encoder_width: int,
        decoder_width: int,
        num_chunk_tokens: int,
        embedding_std: float,
        num_heads: int = 8,
        scaling: str = "head",
    ):
        super().__init__(encoder_width, decoder_width, num_chunk_tokens, embedding_std)
        if encoder_width % num_heads:
            divisors = [n for n in range(1, 65) if encoder_width % n == 0]
            raise UserError(
                f"model.pma_heads={num_heads}: the encoder's width {encoder_width} is not divisible by it; "
                f"choose one of {divisors}"
            )
        self.num_heads = num_heads
        self.scale = (encoder_width if scaling == "model" else encoder_width // num_heads) ** -0.5
        self.seeds = nn.Parameter(torch.empty(num_chunk_tokens, encoder_width))
        self.query = nn.Linear(encoder_width, encoder_width)
        self.key = nn.Linear(encoder_width, encoder_width)
        self.value = nn.Linear(encoder_width, encoder_width)
        self.output = nn.Linear(encoder_width, encoder_width)
        self.feed_forward = nn.Linear(encoder_width, encoder_width)
        self.norm0 = nn.LayerNorm(encoder_width)
        self.norm1 = nn.LayerNorm(encoder_width)
        nn.init.xavier_uniform_(self.seeds)
        for linear in (self.query, self.key, self.feed_forward):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.value, self.output):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def pool(self, hidden_MLh: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """See `Adapter.pool`."""
        heads = (self.num_heads, hidden_MLh.shape[-1] // self.num_heads)
        query_AKe = self.query(self.seeds).unflatten(-1, heads).transpose(0, 1)
        key_MALe = self.key(hidden_MLh).unflatten(-1, heads).transpose(1, 2)
        value_MALe = self.value(hidden_MLh).unflatten(-1, heads).transpose(1, 2)
        scores_MAKL = (query_AKe @ key_MALe.transpose(-1, -2)).float() * self.scale
        mask_M11L = mask_ML[:, None, None, :]
        # The lowest finite number, not -inf: a row of nothing but padding must not turn into NaN.
        scores_MAKL = scores_MAKL.masked_fill(~mask_M11L, torch.finfo(scores_MAKL.dtype).min)
        weights_MAKL = scores_MAKL.softmax(-1) * mask_M11L
        pooled_MKh = (weights_MAKL.to(value_MALe.dtype) @ value_MALe).transpose(1, 2).flatten(2)
        attended_MKh = self.norm0(self.seeds + self.output(pooled_MKh))
        return self.norm1(attended_MKh + torch.relu(self.feed_forward(attended_MKh)))


class MLPAdapter(Adapter):
    """Ablations of the paper: one summary vector a chunk, a hidden layer, the projection.

    Args:
        summary: `"first_token"` takes the hidden state of the first token ([CLS] of a BERT), `"mean"` the mean over
            real tokens.

    Raises:
        UserError: more than one chunk token is asked for; the summary is a single vector.
    """

    def __init__(
        self, encoder_width: int, decoder_width: int, num_chunk_tokens: int, embedding_std: float, summary: str
    ):
        super().__init__(encoder_width, decoder_width, num_chunk_tokens, embedding_std)
        if num_chunk_tokens != 1:
            raise UserError(
                f"model.num_chunk_tokens={num_chunk_tokens}: the {summary}_mlp adapter makes one chunk token a chunk; "
                "set it to 1 or use model.adapter=pma"
            )
        self.summary = summary
        self.hidden = nn.Linear(encoder_width, encoder_width)
        self.norm = nn.LayerNorm(encoder_width)

    def pool(self, hidden_MLh: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """See `Adapter.pool`."""
        if self.summary == "first_token":
            summary_Mh = hidden_MLh[:, 0]
        else:
            weights_ML1 = mask_ML.unsqueeze(-1).to(hidden_MLh.dtype)
            summary_Mh = (hidden_MLh * weights_ML1).sum(1) / weights_ML1.sum(1).clamp(min=1)
        return self.norm(summary_Mh + nn.functional.gelu(self.hidden(summary_Mh))).unsqueeze(1)


def build_adapter(
    kind: str,
    encoder_width: int,
    decoder_width: int,
    num_chunk_tokens: int,
    embedding_std: float,
    pma_heads: int,
    pma_scaling: str,
) -> Adapter:
    """Build the adapter a config names: `pma`, `first_token_mlp` or `mean_mlp`."""
    widths = (encoder_width, decoder_width, num_chunk_tokens, embedding_std)
    if kind == "pma":
        return PMAdapter(*widths, num_heads=pma_heads, scaling=pma_scaling)
    return MLPAdapter(*widths, summary=kind.removesuffix("_mlp"))

"""Adapters: from the encoder's hidden states of a chunk to its K chunk tokens in the decoder's embedding space.

Shape suffixes: M chunks, L encoder tokens a chunk, K seeds (chunk tokens a chunk), h width of the hidden states (of all
encoder layers that are read), w width of pooling, d decoder width, f hidden width of the feed-forward layer, F = h + f,
N samples of a regression, A attention heads, e = w / A.
"""

import torch
from torch import nn

from model.config import E2LLMConfig
from utils.common_utils import UserError


class TokenFeedForward(nn.Module):
    """A row-wise feed-forward layer on the hidden states, before they are pooled: `W x/√h + b + V ReLU(U LN(x))/√f`.

    The Set Transformer pools `rFF(Z)` (arXiv 1810.00825, section 3.2). Without it a pooled vector is linear in the
    hidden states, and a linear map of h dimensions cannot give each of thousands of words a vector of its own. U starts
    at random on the first of the encoder's layers, the one nearest to the words, and at zero on the others. The two
    divisors keep the gradients of W and V at the size of the others': else they are ten times the rest of the model's
    together, and clipping leaves the rest next to nothing.

    Args:
        encoder_width: width of one encoder layer.
        num_layers: layers whose hidden states stand side by side in the input.
        width: w.
        hidden_width: f.
    """

    def __init__(self, encoder_width: int, num_layers: int, width: int, hidden_width: int):
        super().__init__()
        self.layers = (num_layers, encoder_width)
        self.linear = nn.Linear(num_layers * encoder_width, width)
        self.up = nn.Linear(num_layers * encoder_width, hidden_width)
        self.down = nn.Linear(hidden_width, width, bias=False)
        nn.init.normal_(self.up.weight, std=1.5 / encoder_width**0.5)
        nn.init.zeros_(self.up.weight[:, encoder_width:])
        nn.init.zeros_(self.up.bias)
        nn.init.normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        nn.init.normal_(self.down.weight)

    def forward(self, hidden_MLh: torch.Tensor) -> torch.Tensor:
        """Map [M, L, h] to [M, L, w]."""
        return self.linear(self._scaled(hidden_MLh)) + self.down(self._inner(hidden_MLh))

    def features(self, hidden_MLh: torch.Tensor) -> torch.Tensor:
        """Return what the output is linear in, [M, L, h + f]: the hidden states and the inner layer."""
        return torch.cat([self._scaled(hidden_MLh), self._inner(hidden_MLh)], dim=-1)

    def output_spread(self, features_NF: torch.Tensor, outputs: slice) -> float:
        """Return the standard deviation of some outputs on `features`."""
        num_inputs = self.linear.in_features
        output_Nw = self.linear(features_NF[:, :num_inputs]) + self.down(features_NF[:, num_inputs:])
        return output_Nw[:, outputs].std().item()

    @torch.no_grad()
    def fit(self, features_NF: torch.Tensor, target_Nd: torch.Tensor, ridge: float, num_spare: int = 0) -> None:
        """Set W, b and V by ridge regression so that the mean output of some tokens is their target.

        Args:
            features_NF: `features` of N chunks or parts of chunks, each the mean over its tokens.
            target_Nd: what each should map to. Where w less `num_spare` is not d, as many principal components take its
                place: the projection behind the pooling turns them into the target again.
            num_spare: the last outputs, which `fit_last` sets.
        """
        width = self.linear.out_features - num_spare
        if width != target_Nd.shape[1]:
            _, _, directions_dd = torch.linalg.svd(target_Nd - target_Nd.mean(0), full_matrices=True)
            target_Nd = target_Nd @ directions_dd[:width].T
            target_Nd = nn.functional.pad(target_Nd, (0, width - target_Nd.shape[1]))
        self._set_outputs(slice(0, width), *ridge_regression(features_NF, target_Nd, ridge)[:2])

    @torch.no_grad()
    def fit_last(self, features_NF: torch.Tensor, target_Nk: torch.Tensor, ridge: float) -> None:
        """Set the last k outputs by ridge regression of `target_Nk` on the `features` of N single tokens."""
        last = slice(self.linear.out_features - target_Nk.shape[1], None)
        self._set_outputs(last, *ridge_regression(features_NF, target_Nk, ridge)[:2])

    def _set_outputs(self, outputs: slice, weight_Fo: torch.Tensor, bias_o: torch.Tensor) -> None:
        num_inputs = self.linear.in_features
        self.linear.weight[outputs] = weight_Fo[:num_inputs].T
        self.linear.bias[outputs] = bias_o
        self.down.weight[outputs] = weight_Fo[num_inputs:].T

    def _inner(self, hidden_MLh: torch.Tensor) -> torch.Tensor:
        by_layer = hidden_MLh.unflatten(-1, self.layers)
        normed_MLh = nn.functional.layer_norm(by_layer, by_layer.shape[-1:]).flatten(-2)
        return torch.relu(self.up(normed_MLh)) * self.up.out_features**-0.5

    def _scaled(self, hidden_MLh: torch.Tensor) -> torch.Tensor:
        return hidden_MLh * self.linear.in_features**-0.5


class Adapter(nn.Module):
    """Map hidden states row by row if there is a `feed_forward_in`, `pool` them to K vectors, then `projection` to d.

    A subclass defines `pool`. The chunk tokens start with the spread of the decoder's own input embeddings;
    `fit_projection` replaces this start by a closed-form one. That spread, 0.13 in SmolLM2, is a constant factor behind
    the projection (`output_scale`) and not in its weights: AdamW's steps have the size of the learning rate whatever
    the size of a weight, and would make something else of such small weights within a few steps. The factor also
    brings the projection's gradient down to the size of the others'.
    """

    def __init__(self, width: int, decoder_width: int, num_chunk_tokens: int, embedding_std: float):
        super().__init__()
        self.num_chunk_tokens = num_chunk_tokens
        self.feed_forward_in: TokenFeedForward | None = None
        self.output_scale = embedding_std
        self.projection = nn.Linear(width, decoder_width)
        # `pool` ends in a LayerNorm, so its output has unit variance and the projection's has w * std(weight)**2.
        nn.init.normal_(self.projection.weight, std=width**-0.5)
        nn.init.zeros_(self.projection.bias)

    def pool(self, hidden_MLw: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """Return the pooled vectors [M, K, w]; `mask_ML` is True on real tokens."""
        raise NotImplementedError

    def pooled(self, hidden_MLh: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """Return what the projection takes, [M, K, w]."""
        mapped_MLw = self.feed_forward_in(hidden_MLh) if self.feed_forward_in is not None else hidden_MLh
        return self.pool(mapped_MLw, mask_ML)

    def forward(self, hidden_MLh: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """Return the chunk tokens [M, K, d]."""
        return self.project(self.pooled(hidden_MLh, mask_ML))

    def project(self, pooled_MKw: torch.Tensor) -> torch.Tensor:
        """Map what `pooled` returns to chunk tokens [M, K, d]."""
        return self.projection(pooled_MKw) * self.output_scale

    def token_features(self, hidden_MLh: torch.Tensor) -> torch.Tensor:
        """Return what a closed-form start regresses on, [M, L, F]: `feed_forward_in.features`, or the hidden states."""
        return self.feed_forward_in.features(hidden_MLh) if self.feed_forward_in is not None else hidden_MLh

    def part_features(self, hidden_MLh: torch.Tensor, mask_ML: torch.Tensor, part_ML: torch.Tensor) -> torch.Tensor:
        """Return the mean of `token_features` over the tokens of each of the chunk's K parts, [M, K, F].

        Args:
            part_ML: the part of each token, -1 for a token of none. A part without tokens has the mean of the chunk.
        """
        part_K1 = torch.arange(self.num_chunk_tokens, device=part_ML.device)[:, None]
        member_MKL = (part_ML[:, None] == part_K1) & mask_ML[:, None]
        member_MKL |= ~member_MKL.any(-1, keepdim=True) & mask_ML[:, None]
        features_MLF = self.token_features(hidden_MLh)
        member_MKL = member_MKL.to(features_MLF.dtype)
        return member_MKL @ features_MLF / member_MKL.sum(-1, keepdim=True).clamp(min=1)

    def fit_parts(self, features_NF: torch.Tensor, part_N: torch.Tensor, ridge: float, sharpness: float) -> None:
        """Let each chunk token start on its own part of the chunk.

        Args:
            features_NF: `token_features` of N single tokens.
            part_N: the part of each, -1 for a token of none.
            ridge: as in `ridge_regression`.
            sharpness: nats by which the attention to the tokens of a part is to stand out.

        Raises:
            UserError: this adapter cannot have several chunk tokens.
        """
        raise NotImplementedError

    @torch.no_grad()
    def fit_projection(self, pooled_Nw: torch.Tensor, target_Nd: torch.Tensor, ridge: float) -> float:
        """Let `project` be the ridge regression of `target_Nd` on `pooled_Nw`, rescaled to the decoder's spread.

        Args:
            pooled_Nw: outputs of `pooled` for N pieces of text.
            target_Nd: what each should map to, e.g. the mean of the decoder's input embeddings of its tokens.
            ridge: as in `ridge_regression`.

        Returns:
            The share of the targets' variance that the map explains before rescaling.
        """
        weight_wd, _, explained = ridge_regression(pooled_Nw, target_Nd, ridge)
        weight_wd /= (pooled_Nw.double() @ weight_wd).std(0, correction=0).square().mean().sqrt()
        mean_d = target_Nd.double().mean(0) / self.output_scale
        self.projection.weight.copy_(weight_wd.T)
        self.projection.bias.copy_(mean_d - pooled_Nw.double().mean(0) @ weight_wd)
        return explained


def ridge_regression(x_Ni: torch.Tensor, y_No: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Regress y on x, in float64.

    Args:
        ridge: regulariser per sample for inputs of unit variance, which each input that varies is brought to
            before.

    Returns:
        Weight [i, o] and bias [o] for the inputs as they are, and the share of y's variance that they explain.
    """
    x_Ni, y_No = x_Ni.double(), y_No.double()
    x_mean_i, y_mean_o = x_Ni.mean(0), y_No.mean(0)
    x_std_i = x_Ni.std(0)
    x_std_i = x_std_i.clamp(min=0.1 * x_std_i.mean().item())
    x_Ni, y_No = (x_Ni - x_mean_i) / x_std_i, y_No - y_mean_o
    gram_ii = x_Ni.T @ x_Ni
    gram_ii.diagonal().add_(ridge * len(x_Ni))
    weight_io = torch.linalg.solve(gram_ii, x_Ni.T @ y_No)
    explained = 1 - (y_No - x_Ni @ weight_io).square().sum() / y_No.square().sum()
    weight_io = weight_io / x_std_i[:, None]
    return weight_io, y_mean_o - x_mean_i @ weight_io, explained.item()


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
        width: int,
        decoder_width: int,
        num_chunk_tokens: int,
        embedding_std: float,
        num_heads: int = 8,
        scaling: str = "head",
    ):
        super().__init__(width, decoder_width, num_chunk_tokens, embedding_std)
        if width % num_heads:
            divisors = [n for n in range(1, 65) if width % n == 0]
            raise UserError(
                f"model.pma_heads={num_heads}: the width {width} of pooling is not divisible by it; "
                f"choose one of {divisors}"
            )
        self.num_heads = num_heads
        self.scale = (width if scaling == "model" else width // num_heads) ** -0.5
        self.seeds = nn.Parameter(torch.empty(num_chunk_tokens, width))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.feed_forward = nn.Linear(width, width)
        self.norm0 = nn.LayerNorm(width)
        self.norm1 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.seeds)
        for linear in (self.query, self.key, self.feed_forward):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.value, self.output):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    @torch.no_grad()
    def fit_parts(self, features_NF: torch.Tensor, part_N: torch.Tensor, ridge: float, sharpness: float) -> None:
        """See `Adapter.fit_parts`: the keys' first K numbers in every head say of which part a token is, and the query
        of a seed asks for its own. What says it is the last K outputs of the feed-forward layer, where there is one."""
        num_parts, head_width = self.num_chunk_tokens, self.seeds.shape[1] // self.num_heads
        if num_parts > head_width:
            raise UserError(
                f"model.num_chunk_tokens={num_parts}: more than a head is wide ({self.seeds.shape[1]} / "
                f"{self.num_heads}); lower it or model.pma_heads"
            )
        member_NK = (part_N[:, None] == torch.arange(num_parts, device=part_N.device)).to(features_NF.dtype)
        if self.feed_forward_in is None:
            weight_wK, _, _ = ridge_regression(features_NF, member_NK, ridge)
        else:
            # As small as the other outputs, so that the norm behind the pooling sees little of them.
            spread = self.feed_forward_in.output_spread(features_NF, slice(0, -num_parts))
            self.feed_forward_in.fit_last(features_NF, spread * member_NK, ridge)
            weight_wK = torch.zeros_like(self.seeds.T)
            weight_wK[-num_parts:] = torch.eye(num_parts, device=weight_wK.device) / spread
        # Half of the sharpness in the keys and half in the queries, so that neither's gradient outweighs the other's.
        share = (sharpness / self.scale) ** 0.5
        key_Aew = self.key.weight.unflatten(0, (self.num_heads, head_width))
        key_Aew[:, :num_parts] = share * weight_wK.T
        query_KAe = torch.zeros(num_parts, self.num_heads, head_width, device=self.seeds.device)
        query_KAe[:, :, :num_parts] = share * torch.eye(num_parts, device=self.seeds.device)[:, None]
        self.query.weight.copy_((torch.linalg.pinv(self.seeds.float()) @ query_KAe.flatten(1)).T)

    def pool(self, hidden_MLw: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """See `Adapter.pool`."""
        heads = (self.num_heads, hidden_MLw.shape[-1] // self.num_heads)
        query_AKe = self.query(self.seeds).unflatten(-1, heads).transpose(0, 1)
        key_MALe = self.key(hidden_MLw).unflatten(-1, heads).transpose(1, 2)
        value_MALe = self.value(hidden_MLw).unflatten(-1, heads).transpose(1, 2)
        scores_MAKL = (query_AKe @ key_MALe.transpose(-1, -2)).float() * self.scale
        mask_M11L = mask_ML[:, None, None, :]
        # The lowest finite number, not -inf: a row of nothing but padding must not turn into NaN.
        scores_MAKL = scores_MAKL.masked_fill(~mask_M11L, torch.finfo(scores_MAKL.dtype).min)
        weights_MAKL = scores_MAKL.softmax(-1) * mask_M11L
        pooled_MKw = (weights_MAKL.to(value_MALe.dtype) @ value_MALe).transpose(1, 2).flatten(2)
        attended_MKw = self.norm0(self.seeds + self.output(pooled_MKw))
        return self.norm1(attended_MKw + torch.relu(self.feed_forward(attended_MKw)))


class MLPAdapter(Adapter):
    """Ablations of the paper: one summary vector a chunk, a hidden layer, the projection.

    Args:
        summary: `"first_token"` takes the hidden state of the first token ([CLS] of a BERT), `"mean"` the mean over
            real tokens.

    Raises:
        UserError: more than one chunk token is asked for; the summary is a single vector.
    """

    def __init__(self, width: int, decoder_width: int, num_chunk_tokens: int, embedding_std: float, summary: str):
        super().__init__(width, decoder_width, num_chunk_tokens, embedding_std)
        if num_chunk_tokens != 1:
            raise UserError(
                f"model.num_chunk_tokens={num_chunk_tokens}: the {summary}_mlp adapter makes one chunk token a chunk; "
                "set it to 1 or use model.adapter=pma"
            )
        self.summary = summary
        self.hidden = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def pool(self, hidden_MLw: torch.Tensor, mask_ML: torch.Tensor) -> torch.Tensor:
        """See `Adapter.pool`."""
        if self.summary == "first_token":
            summary_Mw = hidden_MLw[:, 0]
        else:
            weights_ML1 = mask_ML.unsqueeze(-1).to(hidden_MLw.dtype)
            summary_Mw = (hidden_MLw * weights_ML1).sum(1) / weights_ML1.sum(1).clamp(min=1)
        return self.norm(summary_Mw + nn.functional.gelu(self.hidden(summary_Mw))).unsqueeze(1)


def build_adapter(config: E2LLMConfig, encoder_width: int, decoder_width: int, embedding_std: float) -> Adapter:
    """Build the adapter a config names for backbones of these widths.

    Raises:
        UserError: the config's widths do not go together.
    """
    num_layers = len(config.encoder_layers)
    if config.adapter_width and not config.adapter_feed_forward:
        raise UserError(
            f"model.adapter_width={config.adapter_width}: only a feed-forward layer changes the width; set "
            "model.adapter_feed_forward to its hidden width, or model.adapter_width to 0"
        )
    width = config.adapter_width or num_layers * encoder_width
    shape = (width, decoder_width, config.num_chunk_tokens, embedding_std)
    if config.adapter == "pma":
        adapter: Adapter = PMAdapter(*shape, num_heads=config.pma_heads, scaling=config.pma_scaling)
    else:
        adapter = MLPAdapter(*shape, summary=config.adapter.removesuffix("_mlp"))
    if config.adapter_feed_forward:
        adapter.feed_forward_in = TokenFeedForward(encoder_width, num_layers, width, config.adapter_feed_forward)
    return adapter

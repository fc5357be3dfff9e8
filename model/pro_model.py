"""E2LLM: a text encoder and an adapter write chunk tokens, a decoder-only language model reads them.

Shape suffixes: B decoder rows, M chunks in the whole batch, L encoder tokens a chunk, K chunk tokens a chunk, T decoder
positions, d decoder width, S slots (places of chunk tokens in all rows), N labelled positions, V vocabulary.
"""

import contextlib
import inspect
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from model import checkpoint, generation
from model.backbones import load_decoder, load_encoder, load_tokenizer
from model.compute import ComputeConfig, ResolvedCompute, default_device
from model.config import E2LLMConfig
from model.encoder_model_bert import ChunkEncoder
from model.lora import fuse_lora
from model.pma import build_adapter
from utils.common_utils import UserError
from utils.tokenization import ChunkTokenizer, PromptFormatter

logger = logging.getLogger(__name__)


class LossOutput(NamedTuple):
    """Sums over the labelled positions of a batch, so that parts of a batch add up to the whole.

    A tuple, since FSDP2 and ZeRO-3 look for the tensors of an output inside standard containers only.
    """

    loss_sum: torch.Tensor
    """Scalar, sum of the negative log-likelihoods in nats; carries the gradient."""
    num_tokens: int
    """Labelled positions."""
    num_correct: torch.Tensor
    """Scalar, labelled positions where the likeliest token is the right one."""


class E2LLM(nn.Module):
    """The whole model. Build one with `from_backbones` (to train) or `from_pretrained` (a checkpoint)."""

    def __init__(
        self,
        config: E2LLMConfig,
        compute: ComputeConfig,
        resolved: ResolvedCompute,
        encoder: PreTrainedModel | PeftModel,
        decoder: PreTrainedModel | PeftModel,
        encoder_tokenizer: PreTrainedTokenizerBase,
        decoder_tokenizer: PreTrainedTokenizerBase,
    ):
        super().__init__()
        self.config = config
        self.resolved_compute = resolved
        self.decoder = decoder
        self.folded_encoder_lora = ""
        """Hash of the encoder's LoRA once it is folded in."""
        self._fingerprint: tuple[list, str] | None = None
        self._check_decoder_layers()
        adapter = build_adapter(config, encoder.config.hidden_size, *_embedding_shape(decoder))
        self.chunk_encoder = ChunkEncoder(
            encoder, adapter, compute.encoder_token_budget, compute.recompute_chunks, config.encoder_layers
        )
        if compute.decoder_checkpointing:
            decoder.gradient_checkpointing_enable({"use_reentrant": False})
        self.encoder_tokenizer = encoder_tokenizer
        self.decoder_tokenizer = decoder_tokenizer
        self.formatter = PromptFormatter(decoder_tokenizer, config.use_chat_template)
        self.chunk_tokenizer = ChunkTokenizer(encoder_tokenizer, self.encoder_window)
        _check_limit("encoder_max_tokens", config.encoder_max_tokens, self.native_encoder_window)
        _check_limit("decoder_max_tokens", config.decoder_max_tokens, self.native_decoder_window)

    @classmethod
    def from_backbones(
        cls,
        config: E2LLMConfig,
        compute: ComputeConfig | None = None,
        device: torch.device | None = None,
        for_training: bool = True,
    ) -> "E2LLM":
        """Build a model from its pretrained backbones: LoRA at zero, the adapter at its start.

        Args:
            for_training: whether gradients are to be computed, which decides what `compute` leaves to it.

        Raises:
            UserError: a backbone is not found, or the config does not fit it.
        """
        compute = compute or ComputeConfig()
        resolved = compute.resolve(device or default_device(), for_training)
        options = {"dtype": resolved.dtype, "attn_implementation": resolved.attn_implementation}
        options["trust_remote_code"] = config.trust_remote_code
        encoder = load_encoder(config.encoder, **options)
        decoder = load_decoder(config.decoder, **options)
        _set_dropout(encoder, config.encoder_dropout)
        encoder.requires_grad_(False)
        decoder.requires_grad_(False)
        encoder = _add_lora(encoder, config, "encoder")
        decoder = _add_lora(decoder, config, "decoder")
        if compute.fused_lora:
            fuse_lora(encoder)
            fuse_lora(decoder)
        encoder_tokenizer = load_tokenizer(config.encoder, "model.encoder", config.trust_remote_code)
        decoder_tokenizer = load_tokenizer(config.decoder, "model.decoder", config.trust_remote_code)
        model = cls(config, compute, resolved, encoder, decoder, encoder_tokenizer, decoder_tokenizer)
        model.to(resolved.device)
        with resolved.autocast():
            model.chunk_encoder.freeze_unread()
        return model

    @classmethod
    def from_pretrained(
        cls, path: str | Path, compute: ComputeConfig | None = None, device: str | torch.device | None = None
    ) -> "E2LLM":
        """Load a checkpoint or an export for inference; see `model.checkpoint.load_model`."""
        return checkpoint.load_model(cls, path, compute, device)

    def encode_context(self, text: str) -> generation.EncodedContext:
        """Read a text of any length; see `model.generation.encode_context`."""
        return generation.encode_context(self, text)

    def generate(
        self,
        prompts: Sequence[str],
        contexts: generation.EncodedContext | Sequence[generation.EncodedContext],
        **options,
    ) -> list[str]:
        """Answer prompts about one context, or about one each; options as in `model.generation.generate`."""
        return [answer.text for answer in generation.generate(self, prompts, contexts, **options)]

    def merge_and_export(self, folder: str | Path) -> None:
        """Fold both LoRAs in and write plain Hugging Face models; see `model.checkpoint.export_merged`."""
        checkpoint.export_merged(self, folder)

    def fold_lora(self) -> None:
        """Fold both LoRAs into their backbones for faster inference; see `model.checkpoint.fold_lora`."""
        checkpoint.fold_lora(self)

    @contextlib.contextmanager
    def base_weights(self) -> Iterator[None]:
        """Run encoder and decoder without their LoRAs inside the block, as they were pretrained."""
        with contextlib.ExitStack() as stack:
            for backbone in (self.chunk_encoder.backbone, self.decoder):
                if isinstance(backbone, PeftModel):
                    stack.enter_context(backbone.disable_adapter())
            yield

    @property
    def encoder_fingerprint(self) -> str:
        """A short hash of what tells the chunk tokens of one checkpoint from those of another: the weights of adapter
        and encoder LoRA, and how text is chunked. Folding LoRA in does not change it."""
        tensors = checkpoint.encoder_tensors(self)
        # Tensors made in inference mode count no versions, and cannot be trained.
        state = [(tensor.data_ptr(), tensor.is_inference() or tensor._version) for tensor in tensors.values()]
        if self._fingerprint is None or self._fingerprint[0] != state:
            self._fingerprint = (state, checkpoint.encoder_fingerprint(self, tensors))
        return self._fingerprint[1]

    @property
    def device(self) -> torch.device:
        """Where the adapter lives, and the inputs must be."""
        return self.chunk_encoder.adapter.projection.weight.device

    @property
    def encoder_window(self) -> int:
        """Encoder tokens of the longest piece of a chunk, special tokens included."""
        return self.config.encoder_max_tokens or self.native_encoder_window

    @property
    def native_encoder_window(self) -> int:
        """Encoder tokens that the encoder was made for."""
        return _window(self.chunk_encoder.backbone.config, self.encoder_tokenizer)

    @property
    def decoder_window(self) -> int:
        """Decoder positions that prompt, chunk tokens and answer may take together."""
        return self.config.decoder_max_tokens or self.native_decoder_window

    @property
    def native_decoder_window(self) -> int:
        """Decoder positions that the decoder was made for, whatever E2LLM takes of them."""
        window = _window(self.decoder.config, self.decoder_tokenizer)
        return min(self.config.decoder_native_window or window, window)

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the tokenizer's, which training puts behind answers, and those of the
        decoder's generation config, where chat models name the end of their turn (Gemma, Phi-3)."""
        named = getattr(self.causal_lm.generation_config, "eos_token_id", None)
        named = named if isinstance(named, list) else [] if named is None else [named]
        return frozenset({self.decoder_tokenizer.eos_token_id, *named})

    @property
    def takes_branches(self) -> bool:
        """Whether the decoder can read packed prompts: its attention takes a mask of its own for every position, and
        its positions are given and not counted.

        Flash and flex attention do not take one; layers with a window would lose it, and ALiBi counts columns.
        """
        return (
            self.resolved_compute.attn_implementation in ("eager", "sdpa")
            and self._cache_layer_types() == {DynamicLayer}
            and not self.counts_columns
        )

    @property
    def counts_columns(self) -> bool:
        """Whether the decoder places tokens by their columns in a row, padding included, and not by the positions that
        it is given: it takes none, uses ALiBi, or has windows that its cache does not know of (GPT-Neo)."""
        decoder = self.causal_lm.get_decoder()
        return (
            "position_ids" not in inspect.signature(decoder.forward).parameters
            or getattr(decoder.config, "alibi", False)
            or "local" in (getattr(decoder.config, "attention_layers", None) or ())
        )

    def forward(self, batch: dict[str, torch.Tensor], shuffle_chunk_tokens: bool = False) -> LossOutput:
        """Compute the summed loss of a batch as `dataset.collator.collate` makes it.

        Args:
            batch: `chunk_ids`, `chunk_mask` [M, L]; `input_ids`, `attention_mask`, `position_ids`, `labels` [B, T] with
                -100 where nothing is to be predicted; `slot_mask` [B, T], true in the slots; `slot_source` [S], for
                each slot in row-major order its index among the M * K chunk tokens; where rows are packed,
                `sequence_ids` and `branch_ids` [B, T].
            shuffle_chunk_tokens: give every slot the chunk token of another chunk: what is left of the loss is what the
                decoder gets right without reading.
        """
        logits_NV, labels_N = self.labelled_logits(batch, shuffle_chunk_tokens)
        loss_sum = nn.functional.cross_entropy(logits_NV, labels_N, reduction="sum")
        num_correct = (logits_NV.detach().argmax(-1) == labels_N).sum()
        return LossOutput(loss_sum, len(labels_N), num_correct)

    def labelled_logits(
        self, batch: dict[str, torch.Tensor], shuffle_chunk_tokens: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits [N, V] that predict the labelled tokens, in float32, and the tokens [N], both row by row.

        Arguments as for `forward`.
        """
        with self.resolved_compute.autocast():
            chunk_tokens_MKd = self.chunk_encoder(batch["chunk_ids"], batch["chunk_mask"])
            if shuffle_chunk_tokens:
                chunk_tokens_MKd = chunk_tokens_MKd.roll(max(1, len(chunk_tokens_MKd) // 2), dims=0)
            hidden_BTd = self.decoder_hidden(self.splice(batch, chunk_tokens_MKd), batch)
            # Position t predicts token t + 1, and only positions with a label go through the language-model head.
            labels_BT = batch["labels"][:, 1:]
            labelled_BT = labels_BT != -100
            return self.head(hidden_BTd[:, :-1][labelled_BT]).float(), labels_BT[labelled_BT]

    def splice(self, batch: dict[str, torch.Tensor], chunk_tokens_MKd: torch.Tensor) -> torch.Tensor:
        """Return the decoder's input embeddings [B, T, d] with the chunk tokens in their slots."""
        embeddings_BTd = self.decoder.get_input_embeddings()(batch["input_ids"])
        chunk_tokens_Sd = chunk_tokens_MKd.flatten(0, 1)[batch["slot_source"]]
        return embeddings_BTd.masked_scatter(batch["slot_mask"].unsqueeze(-1), chunk_tokens_Sd.to(embeddings_BTd.dtype))

    def decoder_hidden(self, embeddings_BTd: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Run the decoder without its head; returns the last hidden states [B, T, d]."""
        attention_mask = batch["attention_mask"]
        if "branch_ids" in batch:
            attention_mask = packed_attention_mask(batch["sequence_ids"], batch["branch_ids"], embeddings_BTd.dtype)
        return self.causal_lm.get_decoder()(
            inputs_embeds=embeddings_BTd,
            attention_mask=attention_mask,
            position_ids=batch["position_ids"],
            use_cache=False,
        ).last_hidden_state

    def head(self, hidden_Nd: torch.Tensor) -> torch.Tensor:
        """Return the logits [N, V] of hidden states, with the scaling some architectures put after their head."""
        logits_NV = self.causal_lm.get_output_embeddings()(hidden_Nd)
        config = self.causal_lm.config
        if getattr(config, "logit_scale", None):  # Cohere
            logits_NV = logits_NV * config.logit_scale
        if getattr(config, "logits_scaling", None):  # Granite
            logits_NV = logits_NV / config.logits_scaling
        if getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits_NV = torch.tanh(logits_NV / config.final_logit_softcapping) * config.final_logit_softcapping
        return logits_NV

    def decoder_layers(self) -> list[nn.Module]:
        """Return the blocks that the decoder's architecture names as not to be split; empty where it names none."""
        names = set(self.causal_lm._no_split_modules or ())
        return [module for module in self.causal_lm.modules() if type(module).__name__ in names]

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The decoder without PEFT's wrapper; its linear layers still carry LoRA."""
        return self.decoder.get_base_model() if isinstance(self.decoder, PeftModel) else self.decoder

    def _cache_layer_types(self) -> set[type]:
        return {type(layer) for layer in DynamicCache(config=self.causal_lm.get_decoder().config).layers}

    def _check_decoder_layers(self) -> None:
        try:
            others = self._cache_layer_types() - {DynamicLayer, DynamicSlidingWindowLayer}
            kinds = ", ".join(sorted(kind.__name__ for kind in others))
        except KeyError as error:  # a kind of layer that transformers does not know
            kinds = str(error)
        if kinds:
            raise UserError(
                f"model.decoder={self.config.decoder!r}: a {self.causal_lm.config.model_type} model has layers that "
                f"keep something else than keys and values of their own ({kinds}), which answers cannot go on from "
                "here; choose another decoder"
            )


def packed_attention_mask(
    sequence_ids_BT: torch.Tensor, branch_ids_BT: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return what to add to attention scores [B, 1, T, T] so that a position sees, up to itself, what is shared by all
    branches of its sequence and its own branch.

    Args:
        sequence_ids_BT: the sequence of every position, -1 for padding, which sees padding alone, so that no row of
            scores is empty.
        branch_ids_BT: the branch of every position in its sequence, 0 for what is shared.
    """
    num_positions = sequence_ids_BT.shape[1]
    same_sequence_BTT = sequence_ids_BT[:, :, None] == sequence_ids_BT[:, None, :]
    same_branch_BTT = branch_ids_BT[:, :, None] == branch_ids_BT[:, None, :]
    shared_B1T = (branch_ids_BT == 0)[:, None, :]
    causal_TT = torch.ones(num_positions, num_positions, dtype=torch.bool, device=branch_ids_BT.device).tril()
    seen_BTT = same_sequence_BTT & (same_branch_BTT | shared_B1T) & causal_TT
    mask_BTT = torch.zeros(seen_BTT.shape, dtype=dtype, device=seen_BTT.device)
    return mask_BTT.masked_fill(~seen_BTT, torch.finfo(dtype).min)[:, None]


def _embedding_shape(decoder: PreTrainedModel | PeftModel) -> tuple[int, float]:
    """Return width and standard deviation of what the decoder reads, which some scale on the way (Gemma)."""
    embedding = decoder.get_input_embeddings()
    # A part of a large vocabulary is enough for a standard deviation.
    ids = torch.arange(min(20000, embedding.weight.shape[0]), device=embedding.weight.device)
    with torch.no_grad():
        rows = embedding(ids).float()
    return rows.shape[1], rows.std().item()


def _window(config, tokenizer: PreTrainedTokenizerBase) -> int:
    window = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in {"roberta", "xlm-roberta"}:
        window -= config.pad_token_id + 1  # their positions start after the padding id
    return min(window, tokenizer.model_max_length)


def _check_limit(key: str, limit: int, window: int) -> None:
    if limit > window:
        backbone = key.split("_", 1)[0]
        raise UserError(
            f"model.{key}={limit}: the {backbone} was made for {window}; set it to at most that, or to 0 for all of it"
        )


def _set_dropout(backbone: nn.Module, probability: float) -> None:
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def _add_lora(backbone: PreTrainedModel, config: E2LLMConfig, side: str) -> PreTrainedModel | PeftModel:
    rank = getattr(config, f"{side}_lora_rank")
    if rank == 0:
        return backbone
    targets = getattr(config, f"{side}_lora_targets")
    if not targets:
        raise UserError(
            f"model.{side}_lora_targets: empty, and model.{side}_lora_rank={rank}; name the linear layers for model "
            f"type {backbone.config.model_type!r} here or in configs/lora_modules.json"
        )
    lora = LoraConfig(
        r=rank,
        lora_alpha=getattr(config, f"{side}_lora_alpha"),
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    try:
        peft_model = get_peft_model(backbone, lora)
    except ValueError as error:
        linear = sorted({name.rpartition(".")[2] for name, m in backbone.named_modules() if isinstance(m, nn.Linear)})
        raise UserError(
            f"model.{side}_lora_targets={targets}: not in this {backbone.config.model_type} model, whose linear layers "
            f"are called {linear}"
        ) from error
    for module in peft_model.modules():
        # Autocast brings LoRA's matrices to the format of the activations; PEFT would copy the activations to float32.
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
    return peft_model

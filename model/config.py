"""What an E2LLM is made of. Saved in every checkpoint; enough, with the backbones, to build the model again."""

from dataclasses import dataclass, field
from typing import Literal

from utils.common_utils import UserError
from utils.tokenization import check_template

UNDERSTANDING = "understanding"
CUED = "cued"
DEFAULT_TASK = "default"


def default_templates() -> dict[str, str]:
    """Return the prompt templates used where a config names none."""
    return {
        UNDERSTANDING: "{context}\nRestate the passage above word for word.",
        CUED: "{context}\nRestate word for word the part of the passage above that says: {prompt}",
        DEFAULT_TASK: "{context}\n{prompt}",
    }


@dataclass
class E2LLMConfig:
    """Architecture of an E2LLM."""

    encoder: str
    """Text encoder: a hub id, a local folder, or `package:NAME/relative/path`."""
    decoder: str
    """Decoder-only language model: a hub id, a local folder or GGUF file, or `package:NAME/relative/path`."""
    trust_remote_code: bool = False
    """Run modelling code that comes with the backbones. Only for sources you trust."""
    chunk_size: int = 512
    """Characters a chunk holds at most. In training it must equal the store's."""
    chunk_overlap: int = 0
    """Characters a chunk repeats of the one before. In training it must equal the store's."""
    encoder_max_tokens: int = 0
    """Encoder tokens a chunk may take before it is split in two; 0: the encoder's window."""
    decoder_max_tokens: int = 0
    """Decoder positions a prompt, its chunk tokens and the answer may take together; 0: the decoder's window."""
    decoder_native_window: int = 0
    """The decoder's own window where its config says something else, for what runs the decoder without E2LLM; 0: what
    its config says. Training takes it from `model_windows`."""
    adapter: Literal["pma", "first_token_mlp", "mean_mlp"] = "pma"
    """How a chunk's hidden states become chunk tokens: pooling by multi-head attention (the paper), or an MLP on the
    first token or on the mean."""
    encoder_layers: list[int] = field(default_factory=lambda: [-1])
    """Hidden states of the encoder that the adapter reads, side by side: 0 its embeddings, 1 its first layer, -1 its
    last."""
    adapter_feed_forward: int = 0
    """Hidden width of a row-wise feed-forward layer on the hidden states before they are pooled; 0: none."""
    adapter_width: int = 0
    """Width the feed-forward layer brings the hidden states to and they are pooled in; 0: that of the hidden states."""
    num_chunk_tokens: int = 1
    """Chunk tokens a chunk becomes (K, the number of PMA seeds). With the closed-form start
    (`adapter_init.method=ridge`) each begins on its own part of the chunk, K equal parts by characters; else all begin
    as much the same mean."""
    pma_heads: int = 8
    """Attention heads of the PMA; must divide the width of pooling."""
    pma_scaling: Literal["head", "model"] = "head"
    """Scale of the PMA's scores: sqrt of the head's width, or of the model's."""
    encoder_lora_rank: int = 16
    """Rank of the encoder's LoRA; 0: the encoder stays as it is."""
    decoder_lora_rank: int = 16
    """Rank of the decoder's LoRA; 0: the decoder stays as it is."""
    encoder_lora_alpha: int = 32
    """Alpha of the encoder's LoRA: its update is scaled by alpha / rank."""
    decoder_lora_alpha: int = 32
    """Alpha of the decoder's LoRA."""
    lora_dropout: float = 0.0
    """Dropout in front of LoRA's first matrix during training."""
    encoder_dropout: float = 0.0
    """Dropout of the encoder's own layers during training (0.1 in BERT's pretraining)."""
    encoder_lora_targets: list[str] = field(default_factory=list)
    """Names of the encoder's linear layers that get LoRA; empty: those of configs/lora_modules.json for its type."""
    decoder_lora_targets: list[str] = field(default_factory=list)
    """Names of the decoder's linear layers that get LoRA; empty: those of configs/lora_modules.json for its type."""
    use_chat_template: bool = True
    """Wrap prompts in the decoder's own chat template."""
    templates: dict[str, str] = field(default_factory=default_templates)
    """Prompt templates by task: {context} marks the chunk tokens, {prompt} the question. `understanding` is that of the
    understanding objective, `cued` that of its cued steps (the cue is the {prompt}), `default` that of tasks with none
    of their own. Training takes them from data.prompt_files."""

    def __post_init__(self):
        at_least = {"chunk_size": 1, "chunk_overlap": 0, "encoder_max_tokens": 0, "decoder_max_tokens": 0}
        at_least |= {"num_chunk_tokens": 1, "pma_heads": 1, "encoder_lora_rank": 0, "decoder_lora_rank": 0}
        at_least |= {"encoder_lora_alpha": 1, "decoder_lora_alpha": 1, "adapter_feed_forward": 0, "adapter_width": 0}
        at_least |= {"decoder_native_window": 0}
        for key, least in at_least.items():
            if getattr(self, key) < least:
                raise UserError(f"model.{key}={getattr(self, key)}: must be at least {least}")
        for key in ("lora_dropout", "encoder_dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"model.{key}={getattr(self, key)}: must be at least 0 and below 1")
        if not self.encoder_layers:
            raise UserError("model.encoder_layers=[]: name at least one layer; [-1] is the encoder's last")
        if self.chunk_overlap >= self.chunk_size:
            raise UserError(
                f"model.chunk_overlap={self.chunk_overlap}: must be below model.chunk_size={self.chunk_size}"
            )
        self.templates = default_templates() | self.templates
        for task, template in self.templates.items():
            check_template(template, f"model.templates[{task!r}]", needs_prompt=task != UNDERSTANDING)

    def template(self, task: str) -> str:
        """Return the prompt template of a task."""
        return self.templates.get(task, self.templates[DEFAULT_TASK])

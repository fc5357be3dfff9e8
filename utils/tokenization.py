"""From text to token ids, the same way in training and inference: prompt templates, chunks, padding."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from utils.common_utils import UserError

# Private-use characters, which no template contains, mark the two places while a chat template renders the rest.
_CONTEXT_MARK = "\ue000context\ue001"
_PROMPT_MARK = "\ue000prompt\ue001"
_DAY = {"%d": "26", "%m": "07", "%b": "Jul", "%B": "July", "%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday"}
_SAME_DAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace('{code}', '{value}')" for code, value in _DAY.items())
    + " }}{%- endmacro %}\n"
)
"""What goes before chat templates that print today's date: training and inference must not differ by their days."""


def check_template(template: str, source: str, needs_prompt: bool) -> None:
    """Check that a prompt template names `{context}` once, and `{prompt}` once where one is needed, or else not at all.

    Raises:
        UserError: it does not; `source` names the file or key in the message.
    """
    for field, wanted in (("{context}", 1), ("{prompt}", int(needs_prompt))):
        count = template.count(field)
        if count != wanted:
            rule = "it must hold it once" if wanted else "it must not, since there is no prompt to put there"
            raise UserError(f"{source}: the template holds {field} {count} times; {rule}")


@dataclass(frozen=True)
class PromptIds:
    """Token ids of a rendered prompt: what comes before the chunk tokens, and what comes after them."""

    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]


class PromptFormatter:
    """Renders a template for a decoder, as a chat turn or as plain text, around the slots of the chunk tokens.

    Args:
        tokenizer: the decoder's.
        use_chat_template: wrap the template as a user's message in the tokenizer's own chat template.

    Raises:
        UserError: a chat template is asked for and the tokenizer has none, or it has no end-of-sequence token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, use_chat_template: bool):
        if use_chat_template and not tokenizer.chat_template:
            raise UserError(
                "model.use_chat_template=true: the decoder's tokenizer has no chat template; set it to false "
                "or use a chat-tuned decoder"
            )
        if tokenizer.eos_token_id is None:
            raise UserError("model.decoder: its tokenizer has no end-of-sequence token, so no answer could end")
        self.tokenizer = tokenizer
        self.use_chat_template = use_chat_template

    def prompt_ids(self, template: str, prompt: str = "") -> PromptIds:
        """Tokenise a template with its prompt; the chunk tokens go between the two parts returned."""
        prefix, suffix = self._rendered(template)
        prefix, suffix = prefix.replace(_PROMPT_MARK, prompt), suffix.replace(_PROMPT_MARK, prompt)
        prefix_ids = self._tokenize(prefix)
        bos_id = self.tokenizer.bos_token_id
        # Plain text begins as the tokenizer would begin it. And a prompt never begins with a chunk token: decoders use
        # their first position as an attention sink (arXiv 2309.17453), so what stands there is not read.
        if not self.use_chat_template and bos_id is not None and (self._adds_bos or not prefix_ids):
            prefix_ids = (bos_id, *prefix_ids)
        if not prefix_ids:
            raise UserError(f"the template {template!r} begins with {{context}}; put some text before it")
        return PromptIds(prefix_ids, self._tokenize(suffix))

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """Tokenise an answer and end it.

        In plain text a space goes before it, as in running text: tokenizers have whole words with the space in front.
        """
        return (*self._tokenize(self._answer_lead + answer), self.tokenizer.eos_token_id)

    def answer_spans(self, answer: str) -> list[tuple[int, int]]:
        """Return for each of `answer_ids` the characters [start, end) of the answer that it stands for; the last, which
        ends it, stands for none."""
        lead = self._answer_lead
        encoded = self.tokenizer(lead + answer, add_special_tokens=False, return_offsets_mapping=True)
        spans = [(max(0, start - len(lead)), end - len(lead)) for start, end in encoded["offset_mapping"]]
        return [*spans, (len(answer), len(answer))]

    @property
    def _answer_lead(self) -> str:
        return "" if self.use_chat_template else " "

    @functools.cached_property
    def _adds_bos(self) -> bool:
        return self.tokenizer("a")["input_ids"][0] == self.tokenizer.bos_token_id

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a formatter lives as long as its model
    def _rendered(self, template: str) -> tuple[str, str]:
        text = template.replace("{context}", _CONTEXT_MARK).replace("{prompt}", _PROMPT_MARK)
        if self.use_chat_template:
            message = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(
                message,
                chat_template=_SAME_DAY + self.tokenizer.get_chat_template(),
                tokenize=False,
                add_generation_prompt=True,
            )
        prefix, suffix = text.split(_CONTEXT_MARK)
        return prefix, suffix

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()


class ChunkTokenizer:
    """Tokenises chunks for the encoder; a chunk longer than its window is split into several, never cut.

    Args:
        tokenizer: the encoder's.
        max_tokens: the encoder's window, special tokens included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int):
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __call__(self, chunks: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Tokenise chunks.

        Returns:
            The token ids of every piece, and for every chunk the number of its pieces (1 unless it was split).
        """
        if not chunks:
            return [], []
        encoded = self.tokenizer(
            list(chunks),
            truncation=True,
            max_length=self.max_tokens,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        pieces = [0] * len(chunks)
        for chunk in encoded["overflow_to_sample_mapping"]:
            pieces[chunk] += 1
        return encoded["input_ids"], pieces


def pad_chunks(piece_ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the token ids of chunks on the right; returns ids and mask, both [M, L]."""
    longest = max((len(ids) for ids in piece_ids), default=1)
    chunk_ids = torch.full((len(piece_ids), longest), pad_token_id, dtype=torch.long)
    chunk_mask = torch.zeros(len(piece_ids), longest, dtype=torch.long)
    for row, ids in enumerate(piece_ids):
        chunk_ids[row, : len(ids)] = torch.tensor(ids)
        chunk_mask[row, : len(ids)] = 1
    return chunk_ids, chunk_mask

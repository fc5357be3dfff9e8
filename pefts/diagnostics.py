"""How the model reads: what is recovered of a chunk when it is restated, and which chunks an answer attends to.

The model's side of the options `diagnostics` of an evaluation; `evaluate.recovery` and `evaluate.attention_focus` make
figures of what is measured here. Shape suffixes: L layers, A heads, S slots, C chunks of a context, P positions before
the prompt's suffix, Q positions behind, T all of them, d decoder width, N labelled positions, V vocabulary.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from dataset.batch_plan import PseudoRandomPermutation
from dataset.collator import DecoderRow, MicroBatch, TokenizedUnit, collate
from dataset.store import ChunkStore, Example
from model.config import UNDERSTANDING
from model.generation import EncodedContext, chunk_token_head, encode_chunks, token_head
from model.pro_model import E2LLM
from pefts.adapter_init import sample_chunks
from pefts.e2llm_evaluator import Evaluator
from pefts.eval_args import EvalConfig
from pefts.eval_plan import open_eval_store
from utils.common_utils import UserError

logger = logging.getLogger(__name__)


@torch.inference_mode()
def restate_chunks(config: EvalConfig, model: E2LLM) -> list[dict]:
    """Restate held-out chunks one by one, each from its own chunk token and from that of another chunk.

    Returns:
        `{"text", "token_spans", "losses", "correct", "losses_shuffled", "correct_shuffled"}` of each chunk, as
        `evaluate.recovery.summarise_recovery` takes them; none where `diagnostics.recovery_chunks` is 0.

    Raises:
        UserError: fewer than two chunks hold text, so that none can be exchanged for another.
    """
    num_chunks = config.diagnostics.recovery_chunks
    if not num_chunks:
        return []
    store = open_eval_store(config.reconstruction.data, "reconstruction.data", model.config)
    texts = [chunk.strip() for chunk in sample_chunks(store, num_chunks, seed=0)]
    texts = sorted((text for text in texts if text), key=len)
    if len(texts) < 2:
        raise UserError(f"diagnostics.recovery_chunks={num_chunks}: needs two chunks with text, and found {len(texts)}")
    # At least two in every batch, since a chunk's token is exchanged for another's.
    batches = np.array_split(np.arange(len(texts)), max(1, len(texts) // max(2, config.batch_size)))
    restated = []
    for batch in tqdm(batches, desc="restating chunks"):
        restated += _restate(model, [texts[index] for index in batch])
    return restated


def _restate(model: E2LLM, texts: Sequence[str]) -> list[dict]:
    batch = _restating_batch(model, texts)
    columns = {}
    for suffix, shuffled in (("", False), ("_shuffled", True)):
        logits_NV, labels_N = model.labelled_logits(batch.tensors, shuffled)
        losses_N = torch.nn.functional.cross_entropy(logits_NV, labels_N, reduction="none")
        columns |= {f"losses{suffix}": losses_N, f"correct{suffix}": logits_NV.argmax(-1) == labels_N}
    spans = [model.formatter.answer_spans(text) for text in texts]
    ends = np.cumsum([len(of_text) for of_text in spans]).tolist()
    return [
        {"text": text, "token_spans": of_text}
        | {name: values[end - len(of_text) : end].tolist() for name, values in columns.items()}
        for text, of_text, end in zip(texts, spans, ends, strict=True)
    ]


def _restating_batch(model: E2LLM, texts: Sequence[str]) -> MicroBatch:
    piece_ids, counts = model.chunk_tokenizer(texts)
    prompt = model.formatter.prompt_ids(model.config.template(UNDERSTANDING))
    units, first = [], 0
    for text, count in zip(texts, counts, strict=True):
        row = DecoderRow(prompt, model.formatter.answer_ids(text), text)
        units.append(TokenizedUnit(piece_ids[first : first + count], [row]))
        first += count
    return collate(units, model.config.num_chunk_tokens, model.encoder_tokenizer.pad_token_id).to(model.device)


def attend_to_chunks(evaluator: Evaluator) -> dict[str, list[dict] | str]:
    """Measure for prompts of each task which chunks their answer attends to.

    Returns:
        task -> `answer_attention` of each prompt, or the reason why there is none. Empty where
        `diagnostics.attention_prompts` is 0.
    """
    if not evaluator.config.diagnostics.attention_prompts:
        return {}
    found = {task.name: _attention_of_task(evaluator, task.name) for task in evaluator.config.tasks}
    for task, answers in found.items():
        if isinstance(answers, str):
            logger.warning("diagnostics.attention_prompts: task %r: %s", task, answers)
    return found


def _attention_of_task(evaluator: Evaluator, task: str) -> list[dict] | str:
    options, model, store = evaluator.config.diagnostics, evaluator.model, evaluator.plan.stores[task]
    examples = [example for of_context in evaluator.plan.examples[task].values() for example in of_context]
    with_evidence = [example for example in examples if _evidence_lines(example) and example.answers]
    if not with_evidence:
        return "no prompt with an answer says in meta.evidence which lines answer it"
    most = options.attention_max_chunks
    suitable = [
        (example, evidence)
        for example in with_evidence
        if (num_chunks := int(store.num_chunks[example.context_index])) <= most
        and len(evidence := evidence_chunks(store, example)) < num_chunks
    ]
    if not suitable:
        return f"no prompt is about a context of at most {most} chunks of which some do not answer it"
    order = PseudoRandomPermutation(len(suitable), "attention", task)
    chosen = order(np.arange(min(options.attention_prompts, len(suitable)))).tolist()
    answers = []
    for example, evidence in tqdm([suitable[index] for index in chosen], f"{task}: attention", unit="prompt"):
        template = evaluator.questions.template(task, example)
        answers.append(answer_attention(model, store, example, evidence, template))
    return answers


def _evidence_lines(example: Example) -> list[int]:
    lines = example.meta.get("evidence")
    is_lines = isinstance(lines, list) and all(isinstance(line, int) and line >= 0 for line in lines)
    return lines if is_lines else []


def evidence_chunks(store: ChunkStore, example: Example) -> tuple[int, ...]:
    """Return the chunks of an example's context that hold a part of the lines in its `meta.evidence` (from 0).

    Raises:
        UserError: the context has fewer lines.
    """
    lines = store.context_text(example.context_index).split("\n")
    missing = [line for line in _evidence_lines(example) if line >= len(lines)]
    if missing:
        raise UserError(f"{example.id}: meta.evidence names line {missing[0]}, and its context has {len(lines)}")
    line_starts = np.cumsum([0, *(len(line) + 1 for line in lines)])
    chunks = store.context_chunks(example.context_index)
    overlaps = store.chunk_overlaps(example.context_index)
    ends = np.cumsum([len(chunk) - overlap for chunk, overlap in zip(chunks, overlaps, strict=True)])
    starts = ends - [len(chunk) for chunk in chunks]
    spans = [(line_starts[line], line_starts[line] + len(lines[line])) for line in _evidence_lines(example)]
    touched = [((starts < end) & (ends > start)) for start, end in spans]
    return tuple(np.flatnonzero(np.any(touched, axis=0)).tolist())


@torch.inference_mode()
def answer_attention(
    model: E2LLM, store: ChunkStore, example: Example, evidence: tuple[int, ...], template: str
) -> dict:
    """Give the decoder the right answer token by token and see which chunks it attends to while it predicts each.

    Returns:
        `{"attention_LAC", "evidence", "right"}`, as `evaluate.attention_focus.summarise_attention` takes them.

    Raises:
        UserError: the decoder's layers do not all see the whole context, or prompt and answer exceed its window.
    """
    if getattr(model.causal_lm.config, "sliding_window", None):
        raise UserError(
            "diagnostics.attention_prompts: not for decoders whose layers see a sliding window only; set to 0"
        )
    tokens, pieces = encode_chunks(model, store.context_chunks(example.context_index))
    prompt = model.formatter.prompt_ids(template, example.prompt)
    answer_ids = model.formatter.answer_ids(example.answers[0])[:-1]  # the end says nothing about what was read
    head_Pd = chunk_token_head(model, prompt.prefix_ids, EncodedContext(tokens, 0))
    tail_Qd = token_head(model, [*prompt.suffix_ids, *answer_ids[:-1]])
    if len(head_Pd) + len(tail_Qd) > model.decoder_window:
        raise UserError(f"{example.id}: exceeds the decoder's window; lower diagnostics.attention_max_chunks")
    attention_LAQS, predicted = _read(model, head_Pd, tail_Qd, len(prompt.prefix_ids), len(answer_ids))
    chunk_of_slot_S = torch.arange(len(pieces)).repeat_interleave(torch.tensor(pieces) * tokens.shape[1])
    attention_LAS = attention_LAQS.float().mean(2).cpu()
    attention_LAC = attention_LAS.new_zeros(*attention_LAS.shape[:2], len(pieces))
    attention_LAC.index_add_(2, chunk_of_slot_S, attention_LAS)
    return {"attention_LAC": attention_LAC.numpy(), "evidence": evidence, "right": predicted == list(answer_ids)}


def _read(
    model: E2LLM, head_Pd: torch.Tensor, tail_Qd: torch.Tensor, first_slot: int, num_answer_tokens: int
) -> tuple[torch.Tensor, list[int]]:
    """Return the attention to the slots [L, A, answer tokens, S] where the answer is predicted, and what was predicted.

    What stands before is read first, without keeping its attention: that would take memory by the square of its length.
    """
    decoder = model.causal_lm.get_decoder()
    # The last position of the head predicts the answer where the prompt has no suffix.
    before, behind = head_Pd[:-1], torch.cat([head_Pd[-1:], tail_Qd])
    with model.resolved_compute.autocast():
        cache = decoder(inputs_embeds=before[None], use_cache=True).past_key_values
        with _eager_attention(model.causal_lm):
            output = decoder(inputs_embeds=behind[None], past_key_values=cache, output_attentions=True)
        hidden_Nd = output.last_hidden_state[0, -num_answer_tokens:]
        predicted = model.head(hidden_Nd).argmax(-1).tolist()
    attention_LAQT = torch.stack([attention[0] for attention in output.attentions])
    return attention_LAQT[:, :, -num_answer_tokens:, first_slot : len(head_Pd)], predicted


@contextlib.contextmanager
def _eager_attention(causal_lm: PreTrainedModel) -> Iterator[None]:
    """Compute attention step by step inside the block: fused kernels do not hand it out."""
    before = causal_lm.config._attn_implementation
    causal_lm.set_attn_implementation("eager")
    try:
        yield
    finally:
        causal_lm.set_attn_implementation(before)

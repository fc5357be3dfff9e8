"""Time and memory of answering one prompt on contexts of growing length: E2LLM beside its decoder reading all of it.

    python benchmarks/inference_speed.py --checkpoint outputs/demo/checkpoints/best --lengths 1k,2k,4k,8k,16k

For every length, with the same prompt and the same number of answer tokens (an end-of-sequence token does not end it):
time to the first token (E2LLM: chunking, encoding and reading the chunk tokens; decoder: tokenising and reading the
context), time for each further token, the whole time, and the most memory taken beside the loaded models. The decoder
runs without LoRA, with its RoPE scaled by YaRN beyond its window. Contexts are sentences of random words.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from evaluate.tables import markdown_table
from model.generation import DecoderInput, GeneratedAnswer, answer_inputs, chunk_token_head, token_head
from model.pro_model import E2LLM
from model.rope_scaling import rope_factor, scaled_rope
from pefts.resource_meter import ResourceMeter
from utils.common_utils import UserError, atomic_write_text, run_cli

PROMPT = "What is the text about?"
WORDS = (
    "time house water year story river letter garden winter market engine teacher window silver morning road".split()
)


@dataclass(frozen=True)
class Measurement:
    """One context answered by one side."""

    side: str
    context_tokens: int
    decoder_positions: int
    first_token_seconds: float
    seconds_per_token: float | None
    """Of the tokens after the first; None where only one was asked for."""
    seconds: float
    peak_bytes: int | None


def random_text(tokenizer, num_tokens: int) -> str:
    """Return sentences of random words that take `num_tokens` tokens, or a sentence's more."""
    rng = random.Random(0)
    text = ""
    while (missing := num_tokens - count_tokens(tokenizer, text)) > 0:
        # Sentences take fewer than 64 tokens, so that only the last one goes beyond.
        num_sentences = max(1, missing // 64)
        text += "".join(
            " ".join(rng.choice(WORDS) for _ in range(12)).capitalize() + ". " for _ in range(num_sentences)
        )
    return text


def count_tokens(tokenizer, text: str) -> int:
    """Return the tokens of a text, without special tokens."""
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def measure(
    model: E2LLM, side: str, text: str, make_input: Callable[[str], DecoderInput], num_tokens: int, repeats: int
) -> Measurement:
    """Answer a prompt on a text `repeats` times; returns the fastest time of each kind and the largest memory."""
    runs, row = [], None
    for _ in range(repeats):
        with ResourceMeter(model.device) as meter:
            started = time.perf_counter()
            row = make_input(text)
            preparation = time.perf_counter() - started
            (answer,) = _answer(model, row, num_tokens)
        first = preparation + answer.first_token_seconds
        runs.append((first, meter.seconds, meter.peak_bytes))
    peaks = [peak for _, _, peak in runs if peak is not None]
    return Measurement(
        side,
        context_tokens=count_tokens(model.decoder_tokenizer, text),
        decoder_positions=row.num_positions,
        first_token_seconds=min(first for first, _, _ in runs),
        seconds_per_token=(
            min(total - first for first, total, _ in runs) / (num_tokens - 1) if num_tokens > 1 else None
        ),
        seconds=min(total for _, total, _ in runs),
        peak_bytes=max(peaks) if peaks else None,
    )


def _answer(model: E2LLM, row: DecoderInput, num_tokens: int) -> list[GeneratedAnswer]:
    factor = rope_factor(row.num_positions + num_tokens, model.native_decoder_window)
    with scaled_rope(model.causal_lm, factor, model.native_decoder_window):
        return answer_inputs(model, [row], max_new_tokens=num_tokens, stop_at_eos=False)


def decoder_input(model: E2LLM, text: str) -> DecoderInput:
    """The whole context as the decoder's own tokens."""
    ids = model.formatter.prompt_ids(model.config.template("default"), PROMPT)
    context_ids = model.decoder_tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return DecoderInput(token_head(model, [*ids.prefix_ids, *context_ids]), ids.suffix_ids)


def e2llm_input(model: E2LLM, text: str) -> DecoderInput:
    """The context as chunk tokens, chunked and encoded here."""
    ids = model.formatter.prompt_ids(model.config.template("default"), PROMPT)
    return DecoderInput(chunk_token_head(model, ids.prefix_ids, model.encode_context(text)), ids.suffix_ids)


@torch.inference_mode()
def run(model: E2LLM, lengths: Sequence[int], num_tokens: int, repeats: int) -> list[Measurement]:
    """Measure both sides at every length; LoRA is folded into the model's weights on the way."""
    texts = [random_text(model.decoder_tokenizer, length) for length in lengths]
    warm = random_text(model.decoder_tokenizer, 64)
    measurements = []
    with tqdm(total=2 * len(texts), desc="measuring") as progress:
        with model.base_weights():
            _answer(model, decoder_input(model, warm), num_tokens)
            for text in texts:
                measurements.append(
                    measure(model, "decoder", text, lambda text: decoder_input(model, text), num_tokens, repeats)
                )
                progress.update()
        model.fold_lora()
        _answer(model, e2llm_input(model, warm), num_tokens)
        for text in texts:
            measurements.append(
                measure(model, "E2LLM", text, lambda text: e2llm_input(model, text), num_tokens, repeats)
            )
            progress.update()
    return measurements


def table(measurements: Sequence[Measurement]) -> str:
    """Lay both sides out by length, and E2LLM's gain: how many times faster, and the share of the memory saved."""
    rows = []
    by_length: dict[int, dict[str, Measurement]] = {}
    for measurement in measurements:
        by_length.setdefault(measurement.context_tokens, {})[measurement.side] = measurement
    for length, sides in by_length.items():
        for side, m in sides.items():
            per_token = None if m.seconds_per_token is None else f"{1000 * m.seconds_per_token:.1f}"
            peak = None if m.peak_bytes is None else f"{m.peak_bytes / 1e6:,.0f}"
            numbers = [f"{m.first_token_seconds:.3f}", per_token, f"{m.seconds:.3f}", peak]
            rows.append([f"{length:,}", side, f"{m.decoder_positions:,}", *numbers])
        rows.append([f"{length:,}", "gain", *_gain(sides["decoder"], sides["E2LLM"])])
    header = ["context tokens", "side", "decoder positions", "first token (s)", "each further token (ms)", "total (s)"]
    return markdown_table([*header, "peak memory (MB)"], rows, right=(0, 2, 3, 4, 5, 6))


def _gain(decoder: Measurement, e2llm: Measurement) -> list[str | None]:
    def times(before: float | None, after: float | None) -> str | None:
        return None if not before or not after else f"{before / after:.1f}x"

    saved = None
    if decoder.peak_bytes and e2llm.peak_bytes is not None:
        saved = f"{100 * (1 - e2llm.peak_bytes / decoder.peak_bytes):.0f} % less"
    return [
        times(decoder.decoder_positions, e2llm.decoder_positions),
        times(decoder.first_token_seconds, e2llm.first_token_seconds),
        times(decoder.seconds_per_token, e2llm.seconds_per_token),
        times(decoder.seconds, e2llm.seconds),
        saved,
    ]


def parse_lengths(text: str) -> list[int]:
    """Read `1k,2000,32k` as numbers of tokens; k stands for 1,024."""
    lengths = []
    for part in text.split(","):
        number, factor = (part[:-1], 1024) if part.endswith("k") else (part, 1)
        if not number.isdigit() or int(number) == 0:
            raise UserError(f"--lengths {text}: {part!r} is no number of tokens such as 2000 or 8k")
        lengths.append(int(number) * factor)
    return lengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="such as outputs/demo/checkpoints/best")
    parser.add_argument("--lengths", default="1k,2k,4k,8k", help="tokens of the context (default: 1k,2k,4k,8k)")
    parser.add_argument("--num_tokens", type=int, default=32, help="answer tokens (default: 32)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, of which the fastest counts (default: 2)")
    parser.add_argument("--output", type=Path, help="also write the measurements to this JSON file")
    arguments = parser.parse_args()
    for name in ("num_tokens", "repeats"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} {getattr(arguments, name)}: must be at least 1")
    lengths = parse_lengths(arguments.lengths)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    model = E2LLM.from_pretrained(arguments.checkpoint)
    measurements = run(model, lengths, arguments.num_tokens, arguments.repeats)
    print(f"{model.device.type}, {model.resolved_compute.dtype}, {torch.get_num_threads()} threads\n")
    print(table(measurements), end="")
    if arguments.output is not None:
        atomic_write_text(arguments.output, json.dumps([asdict(m) for m in measurements], indent=2) + "\n")


if __name__ == "__main__":
    run_cli(main)

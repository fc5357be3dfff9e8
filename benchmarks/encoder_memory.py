"""Peak memory of the encoder in a training step by length of the context: one pass against two.

    python benchmarks/encoder_memory.py --context_tokens 50000 200000 1000000

One pass keeps the encoder's activations of all chunks until the backward pass; two passes (`compute.recompute_chunks`)
keep those of one micro-batch of chunks and compute the others again. Every figure is taken in a process of its own:
the most memory it held during the step beyond what it held before (on Linux, from the kernel's own count). The models
are random, the encoder a BERT; the decoder, whose memory grows with the chunk tokens alone, is left out, and the
gradient is that of a sum over them.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from model.config import E2LLMConfig
from tests.conftest import DECODER_LAYERS, ENCODER_LAYERS, build_model, decoder_tokenizer, encoder_tokenizer

TOKENS_PER_CHUNK = 128
ENCODER_VOCABULARY = DECODER_VOCABULARY = 1000


def main() -> None:
    """Measure every length both ways and print a table."""
    options = parse_options()
    torch.set_num_threads(1)
    print(
        f"encoder: {options.layers} layers of width {options.width}; chunks of {TOKENS_PER_CHUNK} tokens; "
        f"micro-batches of {options.token_budget} tokens; float32, one thread"
    )
    print("| context tokens | chunk tokens | one pass (MiB) | two passes (MiB) | one pass (s) | two passes (s) |")
    print("|--:|--:|--:|--:|--:|--:|")
    for tokens in options.context_tokens:
        one, two = (measured(options, tokens, recompute) for recompute in (False, True))
        cells = [f"{tokens:,}", f"{tokens // TOKENS_PER_CHUNK:,}"]
        cells += [f"{row['mib']:,.0f}" if row else "out of memory" for row in (one, two)]
        cells += [f"{row['seconds']:.1f}" if row else "-" for row in (one, two)]
        print(f"| {' | '.join(cells)} |", flush=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context_tokens", type=int, nargs="+", default=[50_000, 100_000, 200_000, 500_000, 1_000_000])
    parser.add_argument("--width", type=int, default=64, help="width of the encoder")
    parser.add_argument("--layers", type=int, default=2, help="layers of the encoder")
    parser.add_argument("--token_budget", type=int, default=16384, help="compute.encoder_token_budget")
    parser.add_argument("--memory_limit_gib", type=float, default=12, help="address space of a measurement")
    return parser.parse_args()


def measured(options: argparse.Namespace, tokens: int, recompute: bool) -> dict[str, float] | None:
    """Measure in a child process; None where its memory does not suffice."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_measurement, args=(sender, options, tokens, recompute))
    child.start()
    sender.close()
    result = receiver.recv()
    child.join()
    return result


def send_measurement(sender: Connection, options: argparse.Namespace, tokens: int, recompute: bool) -> None:
    """Send what `measure` returns, or None where the memory does not suffice."""
    limit = int(options.memory_limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        sender.send(measure(options, tokens, recompute))
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower():
            raise
        sender.send(None)


def measure(options: argparse.Namespace, tokens: int, recompute: bool) -> dict[str, float]:
    """Take the forward and backward pass of encoder and adapter; returns its extra memory in MiB and its seconds."""
    num_chunks = tokens // TOKENS_PER_CHUNK
    with tempfile.TemporaryDirectory() as folder:
        config = model_config(Path(folder), options)
        model = build_model(
            config, encoder_token_budget=options.token_budget, recompute_chunks=recompute, fused_lora=False
        )
    encoder = model.chunk_encoder.train()
    encoder(*make_chunks(1)).sum().backward()  # what is allocated once and for all
    chunks = make_chunks(num_chunks)
    reset_peak()
    before = peak_kib()
    started = time.perf_counter()
    encoder(*chunks).pow(2).sum().backward()
    return {"mib": (peak_kib() - before) / 1024, "seconds": time.perf_counter() - started}


def reset_peak() -> None:
    """Set the kernel's record of this process's greatest memory to what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_kib() -> int:
    """Return the most memory this process has held since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def model_config(folder: Path, options: argparse.Namespace) -> E2LLMConfig:
    """Write random backbones into a folder; returns the config of an E2LLM with LoRA on both."""
    width = options.width
    BertModel(
        BertConfig(
            vocab_size=ENCODER_VOCABULARY,
            hidden_size=width,
            num_hidden_layers=options.layers,
            num_attention_heads=4,
            intermediate_size=4 * width,
            max_position_embeddings=TOKENS_PER_CHUNK,
        )
    ).save_pretrained(folder / "encoder")
    encoder_tokenizer().save_pretrained(folder / "encoder")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=DECODER_VOCABULARY,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * width,
        )
    ).save_pretrained(folder / "decoder")
    decoder_tokenizer().save_pretrained(folder / "decoder")
    return E2LLMConfig(
        encoder=str(folder / "encoder"),
        decoder=str(folder / "decoder"),
        pma_heads=4,
        encoder_lora_rank=4,
        decoder_lora_rank=4,
        encoder_lora_targets=list(ENCODER_LAYERS),
        decoder_lora_targets=list(DECODER_LAYERS),
    )


def make_chunks(num_chunks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask of random chunks."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_chunks, TOKENS_PER_CHUNK)
    return torch.randint(4, 300, shape, generator=generator), torch.ones(shape, dtype=torch.long)


if __name__ == "__main__":
    main()

"""Peak memory of one training step by length of the context: one pass against two passes through the encoder.

    python benchmarks/encoder_memory.py --context_tokens 50000 200000 1000000

One pass keeps the encoder's activations of all chunks until the backward pass; two passes (`compute.recompute_chunks`)
keep those of one micro-batch of chunks and compute the others again. Every figure is taken in a process of its own:
the most memory it held during the step beyond what it held before (on Linux, from the kernel's own count). The models
are random: a BERT of the given width and layers, and a Llama of two layers that reads all chunk tokens at once.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

TOKENS_PER_CHUNK = 128
ANSWER_TOKENS = 16
ENCODER_VOCABULARY = DECODER_VOCABULARY = 1000


def main() -> None:
    """Measure every length both ways and print a table; or, as a child, measure one."""
    options = parse_options()
    if options.measure:
        print(json.dumps(measure(options)))
        return
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
    parser.add_argument("--recompute", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(options: argparse.Namespace, tokens: int, recompute: bool) -> dict[str, float] | None:
    """Measure in a child process; None where its memory does not suffice."""
    command = [sys.executable, __file__, "--measure", "--context_tokens", str(tokens)]
    command += [f"--{key}={getattr(options, key)}" for key in ("width", "layers", "token_budget", "memory_limit_gib")]
    command += ["--recompute"] if recompute else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return json.loads(result.stdout.splitlines()[-1])
    if "memory" in result.stderr.lower():
        return None
    sys.exit(result.stderr)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Take one training step; returns its extra memory in MiB and its seconds."""
    import torch

    from tests.conftest import build_model

    limit = int(options.memory_limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(1)
    num_chunks = options.context_tokens[0] // TOKENS_PER_CHUNK
    with tempfile.TemporaryDirectory() as folder:
        config = model_config(Path(folder), options, num_chunks)
        model = build_model(
            config, encoder_token_budget=options.token_budget, recompute_chunks=options.recompute, fused_lora=False
        )
    batch = make_batch(num_chunks)
    model.train()
    warm_up = make_batch(1)
    model(warm_up).loss_sum.backward()
    reset_peak()
    before = peak_kib()
    started = time.perf_counter()
    model(batch).loss_sum.backward()
    return {"mib": (peak_kib() - before) / 1024, "seconds": time.perf_counter() - started}


def reset_peak() -> None:
    """Set the kernel's record of this process's greatest memory to what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_kib() -> int:
    """Return the most memory this process has held since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def model_config(folder: Path, options: argparse.Namespace, num_chunks: int):
    """Write random backbones into a folder; returns the config of an E2LLM with LoRA on both."""
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

    from model.config import E2LLMConfig
    from tests.conftest import DECODER_LAYERS, ENCODER_LAYERS, decoder_tokenizer, encoder_tokenizer

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
            max_position_embeddings=num_chunks + 64,
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


def make_batch(num_chunks: int) -> dict:
    """One row that reads all chunks: a token, the chunk tokens, and an answer."""
    import torch

    length = 1 + num_chunks + ANSWER_TOKENS
    generator = torch.Generator().manual_seed(0)
    slot_mask_BT = torch.zeros(1, length, dtype=torch.bool)
    slot_mask_BT[:, 1 : 1 + num_chunks] = True
    input_ids_BT = torch.randint(3, 300, (1, length), generator=generator)
    labels_BT = input_ids_BT.clone()
    labels_BT[:, : 1 + num_chunks] = -100
    return {
        "chunk_ids": torch.randint(4, 300, (num_chunks, TOKENS_PER_CHUNK), generator=generator),
        "chunk_mask": torch.ones(num_chunks, TOKENS_PER_CHUNK, dtype=torch.long),
        "input_ids": input_ids_BT,
        "attention_mask": torch.ones(1, length, dtype=torch.long),
        "position_ids": torch.arange(length).unsqueeze(0),
        "labels": labels_BT,
        "slot_mask": slot_mask_BT,
        "slot_source": torch.arange(num_chunks),
    }


if __name__ == "__main__":
    main()

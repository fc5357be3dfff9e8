"""Tiny backbones and small data that the tests build for themselves: no download, no GPU."""

import json
import os
import random
import signal

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from model.compute import ComputeConfig
from model.config import E2LLMConfig
from model.pro_model import E2LLM
from tests import launches

torch.set_num_threads(1)
# Where the tests run in the background of a shell, Ctrl-C is ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

NAMES = "Ada Bela Cora Dino Edda Fritz Gita Hugo Ines Jona".split()
TOWNS = "Rome Oslo Lima Cairo Delhi Paris Quito Tunis".split()
ENCODER_LAYERS = ["query", "key", "value", "dense"]
DECODER_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the launches, which take longest and leave cores idle: another process does the rest beside them."""
    items.sort(key=lambda item: item.path.name != "test_launches.py")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile what the launches need while other tests run; by the first of the processes that share the tests."""
    is_first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    with_launches = "test_launches.py" in {item.path.name for item in session.items}
    if is_first and with_launches and not session.config.option.collectonly and not launches.MISSING:
        launches.start_compiling()


def sentence(rng: random.Random) -> str:
    """Return a short sentence about an invented person."""
    return f"{rng.choice(NAMES)} lives in {rng.choice(TOWNS)} since {rng.randint(1900, 1999)}."


def corpus(count: int = 200) -> list[str]:
    """Return sentences to train the tiny tokenizers on."""
    rng = random.Random(0)
    return [sentence(rng) for _ in range(count)] + ["Who lives in? Restate the passage above word for word. Answer:"]


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """Build a word-piece tokenizer as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def decoder_tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level BPE tokenizer with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_backbones(folder, encoder_width: int = 32, decoder_width: int = 48) -> tuple[str, str]:
    """Write a tiny BERT and a tiny Llama with random weights and their tokenizers; returns their folders."""
    torch.manual_seed(0)
    tokenizer = encoder_tokenizer()
    encoder = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=encoder_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * encoder_width,
            max_position_embeddings=64,
        )
    )
    encoder.save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    tokenizer = decoder_tokenizer()
    decoder = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=decoder_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=2 * decoder_width,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.1,
        )
    )
    decoder.save_pretrained(folder / "decoder")
    tokenizer.save_pretrained(folder / "decoder")
    return str(folder / "encoder"), str(folder / "decoder")


@pytest.fixture(scope="session")
def backbones(tmp_path_factory) -> tuple[str, str]:
    """Folders of the tiny encoder and decoder."""
    return save_backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture
def model_config(backbones) -> E2LLMConfig:
    """Config of a tiny E2LLM with LoRA on both sides."""
    return E2LLMConfig(
        encoder=backbones[0],
        decoder=backbones[1],
        chunk_size=40,
        pma_heads=4,
        encoder_lora_rank=4,
        decoder_lora_rank=4,
        encoder_lora_targets=list(ENCODER_LAYERS),
        decoder_lora_targets=list(DECODER_LAYERS),
    )


def build_model(config: E2LLMConfig, seed: int = 0, **compute) -> E2LLM:
    """Build a tiny model in float32 whose LoRA does something, as after training."""
    torch.manual_seed(seed)
    options = {"dtype": "float32", "attn_implementation": "sdpa"} | compute
    model = E2LLM.from_backbones(config, ComputeConfig(**options), torch.device("cpu"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.fixture
def model(model_config) -> E2LLM:
    """A tiny E2LLM in evaluation mode."""
    return build_model(model_config).eval()


@pytest.fixture
def examples_file(tmp_path):
    """A JSONL file: documents of one to four sentences with two prompts each, and one without prompts."""
    rng = random.Random(1)
    path = tmp_path / "examples.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for index in range(24):
            context = "\n".join(sentence(rng) for _ in range(1 + index % 4))
            name, _, _, town, _, year = context.split("\n")[0].rstrip(".").split(" ")
            for prompt, answer in ((f"Where does {name} live?", town), (f"Since when does {name} live there?", year)):
                record = {"context": context, "prompt": prompt, "answer": answer, "meta": {"kind": "one_fact"}}
                file.write(json.dumps(record) + "\n")
        file.write(json.dumps({"context": "\n".join(sentence(rng) for _ in range(3))}) + "\n")
    return path

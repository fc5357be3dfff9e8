"""The paper's pair, GTE-large-en (a BERT) with Llama-2-7B-chat, at toy width, from its config alone."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from dataset.batch_plan import Stage
from model.compute import ComputeConfig
from model.pro_model import E2LLM
from pefts.e2llm_args import TrainConfig
from pefts.run_setup import complete_model_config
from tests.conftest import decoder_tokenizer, encoder_tokenizer
from tests.model.test_pro_model import batch_of, make_units
from utils.config_parsing import parse_config

ROOT = Path(__file__).parents[2]
# The layer shapes of thenlper/gte-large and meta-llama/Llama-2-7b-chat-hf, with widths divided by 16 and two layers.
GTE_LARGE = {"hidden_size": 1024 // 16, "num_attention_heads": 16, "intermediate_size": 4096 // 16}
LLAMA_2_7B = {"hidden_size": 4096 // 16, "num_attention_heads": 32, "intermediate_size": 11008 // 16}


@pytest.fixture
def paper_backbones(tmp_path) -> tuple[str, str]:
    """Folders with the two architectures at toy width."""
    tokenizer = encoder_tokenizer()
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=512, **GTE_LARGE)
    BertModel(config).save_pretrained(tmp_path / "gte")
    tokenizer.save_pretrained(tmp_path / "gte")
    tokenizer = decoder_tokenizer()
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=32, **sizes, **LLAMA_2_7B)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    return str(tmp_path / "gte"), str(tmp_path / "llama")


def test_paper_config_builds_its_model_and_takes_a_step(paper_backbones, monkeypatch):
    monkeypatch.chdir(ROOT)
    raw = json.loads((ROOT / "configs/paper_config.json").read_text())
    assert raw["model"]["encoder"] == "thenlper/gte-large"
    assert raw["model"]["decoder"] == "meta-llama/Llama-2-7b-chat-hf"
    encoder, decoder = paper_backbones
    overrides = ["--model.encoder", encoder, "--model.decoder", decoder]
    config = parse_config(TrainConfig, ["--config", "configs/paper_config.json", *overrides])
    assert config.data.stages == [Stage(reasoning_share=0.5, max_window_chunks=4)]
    complete_model_config(config)
    model = E2LLM.from_backbones(config.model, ComputeConfig(dtype="float32", recompute_chunks=True)).train()
    adapter = model.chunk_encoder.adapter
    assert adapter.seeds.shape == (1, 64)
    assert adapter.projection.weight.shape == (256, 64)
    lora_layers = {
        name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name
    }
    assert lora_layers == {"query", "key", "value", "dense"} | {
        f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
    }
    output = model(batch_of(model, make_units(model)).tensors)
    output.loss_sum.backward()
    assert torch.isfinite(output.loss_sum)
    assert adapter.seeds.grad.abs().sum() > 0

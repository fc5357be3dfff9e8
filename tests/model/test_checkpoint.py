"""Checkpoints: the same logits again, plain exports, and clear errors."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from model.checkpoint import load_weights, save_model, verify_manifest, write_manifest
from model.compute import ComputeConfig
from model.pro_model import E2LLM
from tests.conftest import build_model, corpus, save_backbones
from tests.model.test_pro_model import batch_of, make_units
from utils.common_utils import UserError


@pytest.fixture
def saved(model, tmp_path):
    """A checkpoint of the tiny model."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_model(model, folder)
    write_manifest(folder)
    return folder


def loss_of(model) -> float:
    with torch.no_grad():
        return model(batch_of(model, make_units(model)).tensors).loss_sum.item()


def test_save_and_load_give_the_same_logits(model, saved):
    loaded = E2LLM.from_pretrained(saved)
    assert loss_of(loaded) == loss_of(model)
    assert loaded.config == model.config
    fresh = build_model(model.config, seed=7).eval()
    assert loss_of(fresh) != pytest.approx(loss_of(model), rel=1e-4)


@pytest.mark.parametrize(
    ("dtype", "to_train", "to_answer"), [("bfloat16", "eager", "sdpa"), ("float32", "sdpa", "sdpa")]
)
def test_attention_is_chosen_by_what_the_model_is_for(saved, model, dtype, to_train, to_answer):
    """In bfloat16 on a processor the backward pass wants eager attention, and a long context anything but that."""
    compute, device = ComputeConfig(dtype=dtype), torch.device("cpu")
    answering = E2LLM.from_pretrained(saved, compute, device)
    training = E2LLM.from_backbones(model.config, compute, device)
    for built, attention in ((answering, to_answer), (training, to_train)):
        assert built.resolved_compute.attn_implementation == attention
        assert built.causal_lm.config._attn_implementation == attention
    named = ComputeConfig(dtype=dtype, attn_implementation="eager")
    assert E2LLM.from_pretrained(saved, named, device).resolved_compute.attn_implementation == "eager"


def test_only_trained_weights_are_saved(saved):
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert {"e2llm_config.json", "adapter.safetensors", "manifest.json"} <= files
    assert {
        f"{side}_lora/adapter_{kind}"
        for side in ("encoder", "decoder")
        for kind in ("config.json", "model.safetensors")
    } <= files
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    assert sum(path.stat().st_size for path in saved.rglob("*.safetensors")) < 200_000


def test_export_is_plain_transformers_with_the_same_output(model, tmp_path):
    before = loss_of(model)
    context = "\n".join(corpus()[:5])
    own = model.encode_context(context)
    answers = model.generate(["Who?"], own, max_new_tokens=6)
    model.merge_and_export(tmp_path / "export")
    exported = E2LLM.from_pretrained(tmp_path / "export")
    assert loss_of(exported) == pytest.approx(before, rel=1e-5)
    assert exported.generate(["Who?"], exported.encode_context(context), max_new_tokens=6) == answers
    assert exported.generate(["Who?"], own, max_new_tokens=6) == answers, "folding makes no other encoder"
    decoder = AutoModelForCausalLM.from_pretrained(tmp_path / "export" / "decoder")
    encoder = AutoModel.from_pretrained(tmp_path / "export" / "encoder")
    assert not any("lora" in name for part in (decoder, encoder) for name, _ in part.named_parameters())
    (tmp_path / "moved").parent.mkdir(exist_ok=True)
    (tmp_path / "export").rename(tmp_path / "moved")
    assert loss_of(E2LLM.from_pretrained(tmp_path / "moved")) == pytest.approx(before, rel=1e-5)
    with pytest.raises(UserError, match="moved: already exists"):
        exported.merge_and_export(tmp_path / "moved")


@pytest.mark.parametrize("name", ["adapter.safetensors", "decoder_lora/adapter_model.safetensors"])
def test_damage_is_named(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{name}: damaged \(\d+ bytes, {len(content)} were written\)"):
        E2LLM.from_pretrained(saved)
    (saved / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{name}: damaged .*SHA-256"):
        verify_manifest(saved)
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing from the checkpoint"):
        E2LLM.from_pretrained(saved)


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(UserError, match="no checkpoint here"):
        E2LLM.from_pretrained(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(model, saved, model_config, tmp_path):
    (tmp_path / "other").mkdir()
    encoder, decoder = save_backbones(tmp_path / "other", decoder_width=64)
    other = build_model(dataclasses.replace(model_config, encoder=encoder, decoder=decoder))
    with pytest.raises(UserError, match=r"made with another decoder \(hidden_size: saved 48, here 64\)"):
        load_weights(other, saved)
    wider = build_model(dataclasses.replace(model_config, decoder_lora_rank=8))
    with pytest.raises(UserError, match=r"decoder_lora.*of another model .*saved \(4, "):
        load_weights(wider, saved)


def test_a_checkpoint_of_an_older_format_is_refused(saved):
    path = saved / "e2llm_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1}))
    with pytest.raises(UserError, match="format_version=1; this program reads 2; use the version of the program"):
        E2LLM.from_pretrained(saved)


def test_unknown_config_keys_are_refused(saved):
    content = json.loads((saved / "e2llm_config.json").read_text())
    content["config"]["chunk_sise"] = 3
    (saved / "e2llm_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="unknown key config.chunk_sise. Did you mean 'chunk_size'"):
        E2LLM.from_pretrained(saved)

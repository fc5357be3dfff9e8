"""Backbones whose code comes with them."""

import json

import pytest
import torch
from transformers import dynamic_module_utils

from model.backbones import load_encoder

CODE = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel


class OwnConfig(PreTrainedConfig):
    model_type = "own"
    hidden_size = 8


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = torch.nn.Linear(8, 8)
        self.register_buffer("frequencies", 10000.0 ** -torch.arange(0, 1, 0.25), persistent=False)
        self.register_buffer("kept", torch.zeros(3))
        self.register_buffer("unsaved", torch.full((3,), 0.25))
        self.post_init()
"""


@pytest.fixture
def own_model(tmp_path, monkeypatch) -> str:
    """A folder with a model of its own code."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "modeling_own.py").write_text(CODE)
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names, "hidden_size": 8}))
    weights = {"linear.weight": torch.ones(8, 8), "linear.bias": torch.ones(8), "kept": torch.full((3,), 7.0)}
    torch.save(weights, folder / "pytorch_model.bin")
    return str(folder)


def test_buffers_that_own_code_computes_are_there(own_model):
    model = load_encoder(own_model, dtype=torch.float32, attn_implementation="eager", trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules")
    torch.testing.assert_close(model.frequencies, 10000.0 ** -torch.arange(0, 1, 0.25))
    assert model.kept.tolist() == [7.0] * 3
    assert model.unsaved.tolist() == [0.25] * 3
    assert model.linear.weight.eq(1).all()

"""Overrides by dotted key, and trainings made shorter."""

import pytest

from benchmarks.config_overrides import apply_overrides, shorten
from utils.common_utils import UserError

CONFIG = {
    "num_steps": 400,
    "model": {"chunk_size": 80},
    "data": {"stages": [{"steps": 100, "max_context_chunks": 4}, {"steps": 90, "max_context_chunks": 7}, {}]},
    "optim": {"num_warmup_steps": 15, "learning_rate": 0.5},
    "checkpoint": {"save_every": 70},
}


def test_options_are_set_in_objects_and_in_each_item_of_a_list():
    overrides = {
        "model.chunk_size": 40,
        "data.stages[*].reasoning_share": 1.0,
        "data.prompt_files.cued": "cued.txt",
        "seed": 3,
    }
    result = apply_overrides(CONFIG, overrides, "variants.x")
    assert result["model"] == {"chunk_size": 40}
    assert [stage["reasoning_share"] for stage in result["data"]["stages"]] == [1.0] * 3
    assert result["data"]["stages"][0]["steps"] == 100
    assert result["data"]["prompt_files"] == {"cued": "cued.txt"}
    assert result["seed"] == 3
    assert CONFIG["model"] == {"chunk_size": 80}
    assert "reasoning_share" not in CONFIG["data"]["stages"][0]


def test_numbers_are_multiplied_and_whole_ones_rounded_up():
    two = {"data": {"stages": CONFIG["data"]["stages"][:2]}, "rate": 0.5}
    result = apply_overrides(
        two, {"data.stages[*].max_context_chunks": {"times": 0.5}, "rate": {"times": 3}}, "variants.x"
    )
    assert [stage["max_context_chunks"] for stage in result["data"]["stages"]] == [2, 4]
    assert result["rate"] == 1.5
    assert apply_overrides({"n": 10}, {"n": {"times": 1.1}}, "x") == {"n": 11}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.chunk_size.large", 1, r"variants.x: model.chunk_size.large: 'large' is looked for in 80"),
        ("model[*].x", 1, "'model' must be a list with items"),
        ("data.stages[*]", 1, "an option of theirs must follow"),
        ("model.chunk_sise", {"times": 2}, "no number to multiply, but None.* Did you mean 'chunk_size'"),
    ],
)
def test_keys_that_lead_nowhere_are_named(key, value, message):
    with pytest.raises(UserError, match=message):
        apply_overrides(CONFIG, {key: value}, "variants.x")


def test_a_shorter_training_keeps_its_proportions():
    short = shorten(CONFIG, 40)
    assert short["num_steps"] == 40
    assert [stage.get("steps") for stage in short["data"]["stages"]] == [10, 9, None]
    assert short["optim"] == {"num_warmup_steps": 2, "learning_rate": 0.5}
    assert short["checkpoint"] == {"save_every": 7}
    assert CONFIG["num_steps"] == 400
    assert shorten({"num_steps": 9, "optim": {"num_warmup_steps": 8}}, 3)["optim"]["num_warmup_steps"] == 2
    assert shorten({"num_steps": 9, "optim": {"num_warmup_steps": 0}}, 3)["optim"]["num_warmup_steps"] == 0
    with pytest.raises(UserError, match="num_steps=2: fewer than the stages"):
        shorten(CONFIG, 2)

"""Learning rates by step, parameter groups, and the optimizer's state by name."""

import math

import pytest
import torch

from pefts.e2llm_args import OptimConfig
from pefts.optimizer import (
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rates,
)
from tests.model.test_pro_model import batch_of, make_units


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_warm_up_reaches_the_peak_and_the_last_step_the_final_ratio(schedule):
    config = OptimConfig(num_warmup_steps=10, schedule=schedule, final_learning_rate_ratio=0.1)
    factors = [learning_rate_factor(step, 100, config) for step in range(100)]
    assert factors[10] == max(factors) == 1
    assert 0 < factors[0] < factors[5] < factors[9] < 1
    assert all(before >= after for before, after in zip(factors[10:], factors[11:], strict=False))
    assert factors[99] == pytest.approx(1 if schedule == "constant" else 0.1)
    halfway = {"cosine": 0.55, "linear": 0.55, "constant": 1}[schedule]
    assert (factors[54] + factors[55]) / 2 == pytest.approx(halfway, abs=1e-9)


def test_cosine_is_a_cosine():
    config = OptimConfig(num_warmup_steps=0)
    factors = [learning_rate_factor(step, 5, config) for step in range(5)]
    assert factors == pytest.approx([(1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)])


@pytest.mark.parametrize(("num_steps", "num_warmup_steps"), [(1, 0), (1, 1), (3, 3), (3, 9)])
def test_short_runs_have_a_learning_rate(num_steps, num_warmup_steps):
    config = OptimConfig(num_warmup_steps=num_warmup_steps)
    factors = [learning_rate_factor(step, num_steps, config) for step in range(num_steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0


def test_learning_rates_depend_on_the_step_alone(model):
    config = OptimConfig(learning_rate=1e-3, adapter_learning_rate=4e-3, num_warmup_steps=3)
    optimizer = build_optimizer(model, config)
    forward = [set_learning_rates(optimizer, learning_rate_factor(step, 20, config)) for step in range(20)]
    backward = [set_learning_rates(optimizer, learning_rate_factor(step, 20, config)) for step in reversed(range(20))]
    assert forward == backward[::-1]
    assert forward[3] == {"decoder": 1e-3, "encoder": 1e-3, "adapter": 4e-3}


@pytest.mark.parametrize("encoder_rate", [0.0, 2e-4])
def test_groups_of_parameters(model, encoder_rate):
    config = OptimConfig(
        learning_rate=1e-3, encoder_learning_rate=encoder_rate, adapter_learning_rate=4e-3, weight_decay=0.2
    )
    groups = build_optimizer(model, config).param_groups
    options = {id(parameter): group for group in groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(options) == sum(len(group["params"]) for group in groups) == len(trained)
    undecayed = set()
    for name, parameter in trained.items():
        group = options[id(parameter)]
        expected = 1e-3
        if name.startswith("chunk_encoder."):
            expected = 4e-3 if "chunk_encoder.adapter" in name else encoder_rate or 1e-3
        assert group["peak_lr"] == expected, name
        assert group["weight_decay"] in (0.0, 0.2)
        if group["weight_decay"] == 0:
            undecayed.add(name.removeprefix("chunk_encoder.adapter."))
    linears = ("query", "key", "value", "output", "feed_forward", "projection")
    norms = ("norm0.weight", "norm0.bias", "norm1.weight", "norm1.bias")
    assert undecayed == {"seeds", *norms, *(f"{linear}.bias" for linear in linears)}


def backward(model) -> None:
    output = model(batch_of(model, make_units(model)).tensors)
    (output.loss_sum / output.num_tokens).backward()


def test_state_goes_round_by_name(model):
    config = OptimConfig()
    optimizer = build_optimizer(model, config)
    set_learning_rates(optimizer, 1.0)
    backward(model)
    optimizer.step()
    saved = optimizer_tensors(model, optimizer)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert set(saved) == {f"{kind}/{name}" for kind in ("step", "exp_avg", "exp_avg_sq") for name in trained}
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    saved = {key: tensor.clone() for key, tensor in saved.items()}

    # Groups in another order: a state by position would go to other parameters.
    fresh = build_optimizer(model, config)
    fresh.param_groups.reverse()
    assert restore_optimizer(model, fresh, saved) == []
    after = []
    for each in (optimizer, fresh):
        model.load_state_dict(weights)
        set_learning_rates(each, 1.0)
        each.step()
        after.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
    for name in trained:
        assert not torch.equal(after[0][name], weights[name]), name
        assert torch.equal(after[0][name], after[1][name]), name


def test_parameters_without_a_state_are_named(model):
    optimizer = build_optimizer(model, OptimConfig())
    assert optimizer_tensors(model, optimizer) == {}
    missing = restore_optimizer(model, optimizer, {})
    assert missing == [name for name, parameter in model.named_parameters() if parameter.requires_grad]

"""AdamW over LoRA and adapter, and its learning rates as a function of the step."""

import math

import torch
from torch import nn

from model.checkpoint import whole_on_cpu
from pefts.e2llm_args import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Group the trained parameters by learning rate and weight decay.

    Norms, biases and seeds are not decayed: the seeds are inputs, not weights. Every group keeps its peak learning rate
    as `peak_lr`, from which `set_learning_rates` derives that of a step.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and not name.endswith("seeds")
            groups.setdefault((_part(name), decays), []).append(parameter)
    peaks = {
        "adapter": config.adapter_learning_rate,
        "encoder": config.encoder_learning_rate or config.learning_rate,
        "decoder": config.learning_rate,
    }
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "name": part,
                "lr": 0.0,
                "peak_lr": peaks[part],
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (part, decays), parameters in groups.items()
        ],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def _part(name: str) -> str:
    """Return which part of the model a trained parameter belongs to: `adapter`, or the side of its LoRA."""
    if "lora_" not in name:
        return "adapter"
    return "encoder" if name.startswith("chunk_encoder.") else "decoder"


def learning_rate_factor(step: int, num_steps: int, config: OptimConfig) -> float:
    """Return the share of the peak learning rate at a step, counted from 0.

    The warm-up rises linearly and is at its peak at step `num_warmup_steps`; the last step has
    `final_learning_rate_ratio` (Loshchilov and Hutter, arXiv 1608.03983, for the cosine).
    """
    if step < config.num_warmup_steps:
        return (step + 1) / (config.num_warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.num_warmup_steps) / max(1, num_steps - 1 - config.num_warmup_steps)
    progress = min(1.0, progress)
    remaining = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_learning_rate_ratio + (1 - config.final_learning_rate_ratio) * remaining


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set every group's learning rate for a step; returns them by group name."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return AdamW's state as named tensors `KIND/PARAMETER`, whatever the order of groups; sharded ones made whole."""
    return {
        f"{kind}/{name}": whole_on_cpu(tensor)
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for kind, tensor in optimizer.state[parameter].items()
    }


def state_by_parameter(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Sort tensors `KIND/PARAMETER` by parameter, then by kind."""
    by_parameter: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        kind, name = key.split("/", 1)
        by_parameter.setdefault(name, {})[kind] = tensor
    return by_parameter


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> list[str]:
    """Put back what `optimizer_tensors` returned; returns the names of trained parameters that had no state there."""
    by_parameter = state_by_parameter(tensors)
    missing = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in by_parameter:
            missing.append(name)
            continue
        optimizer.state[parameter] = {kind: tensor.to(parameter.device) for kind, tensor in by_parameter[name].items()}
    return missing

"""How gradients are exchanged and weights updated: one process, DDP, DeepSpeed ZeRO, FSDP2.

The trainer sees an `Engine`: inside `micro_batch` it calls `module` and gives the loss to `backward`; then it looks at
the norm that `clip_gradients` returns, and lets `step` update. What a checkpoint holds comes from `model_tensors` and
`optimizer_tensors`: whole and by parameter name under every engine, so that any of them, on any number of processes,
continues another's run.

DeepSpeed is imported by its engines alone.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.distributed
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

from model.checkpoint import model_tensors
from model.pro_model import E2LLM
from pefts.agreement import greatest
from pefts.optimizer import optimizer_tensors, restore_optimizer, state_by_parameter

PERSISTENCE = "E2LLM_ZERO3_PERSISTENCE_THRESHOLD"
"""Environment variable: weights of fewer elements stay whole on all processes under ZeRO-3; DeepSpeed's own default is
100,000."""


class Engine:
    """One process, or DDP: every process holds all weights and the whole optimizer.

    Args:
        accelerator: knows processes and devices.
        model: the model on its device, with the weights it starts from.
        optimizer: AdamW over the trained parameters, without a state.
        max_grad_norm: gradients above this norm are scaled down to it.
    """

    shards_weights = False
    """Whether a process holds a part of each weight between the calls of its module."""

    def __init__(self, accelerator: Accelerator, model: E2LLM, optimizer: torch.optim.AdamW, max_grad_norm: float):
        self.accelerator = accelerator
        self.bare_model = model
        self.module: nn.Module = model
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self._wrap()

    def _wrap(self) -> None:
        """Turn `module` and `optimizer` into what the engine works with."""
        if self.accelerator.num_processes > 1:
            self.module = self.accelerator.prepare_model(self.bare_model)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {name: weight for name, weight in self.bare_model.named_parameters() if weight.requires_grad}

    def micro_batch(self, is_last: bool) -> AbstractContextManager:
        """Return the context of a micro-batch's forward and backward pass; the step's last one exchanges gradients."""
        return contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.module)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss; exchanged gradients are the mean over the processes."""
        loss.backward()

    def clip_gradients(self) -> float:
        """Scale the step's gradient down to the largest norm allowed; returns its norm before, over all processes."""
        return float(nn.utils.clip_grad_norm_(self.trained.values(), self.max_grad_norm))

    def step(self) -> None:
        """Update the weights and forget the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def model_tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the trained weights, whole, as `model.checkpoint.model_tensors`; all processes must call it."""
        return model_tensors(self.bare_model)

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """Return AdamW's state, whole, as tensors `KIND/PARAMETER`; all processes must call it."""
        return optimizer_tensors(self.bare_model, self.optimizer)

    def restore_optimizer(self, tensors: dict[str, torch.Tensor]) -> list[str]:
        """Put back what `optimizer_tensors` returned; returns the names of parameters that had no state there."""
        return restore_optimizer(self.bare_model, self.optimizer, tensors)


class Fsdp2Engine(Engine):
    """Fully sharded data parallelism by torch's `fully_shard`: a unit a decoder layer, and one for all the rest.

    The encoder stays in the last unit, gathered once a forward pass: how many micro-batches its chunks make differs
    from process to process, and were it sharded by layers, so would the number of exchanges.
    """

    shards_weights = True

    def _wrap(self) -> None:
        names = {weight: name for name, weight in self.bare_model.named_parameters()}
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        for layer in self.bare_model.decoder_layers():
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        fully_shard(self.bare_model, mesh=mesh, reshard_after_forward=True)
        # The sharded weights are new parameters.
        weights = dict(self.bare_model.named_parameters())
        for group in self.optimizer.param_groups:
            group["params"] = [weights[names[weight]] for weight in group["params"]]

    @contextlib.contextmanager
    def micro_batch(self, is_last: bool) -> Iterator[None]:
        """See `Engine.micro_batch`."""
        self.module.set_requires_gradient_sync(is_last)
        yield

    def clip_gradients(self) -> float:
        """See `Engine.clip_gradients`."""
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.max_grad_norm)
        return float(norm.full_tensor())

    def restore_optimizer(self, tensors: dict[str, torch.Tensor]) -> list[str]:
        """See `Engine.restore_optimizer`; every process takes its part of each tensor."""
        sharded = {}
        trained = self.trained
        for key, tensor in tensors.items():
            weight = trained.get(key.split("/", 1)[1])
            if weight is not None and tensor.shape == weight.shape:
                tensor = tensor.to(weight.device)
                tensor = distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)
            sharded[key] = tensor
        return super().restore_optimizer(sharded)


class ZeroEngine(Engine):
    """DeepSpeed ZeRO-1 and ZeRO-2: optimizer, and gradients, divided among the processes.

    DeepSpeed keeps AdamW's state over flat partitions of each parameter group; here it goes in and out by parameter.
    """

    def _wrap(self) -> None:
        config = self.accelerator.state.deepspeed_plugin.deepspeed_config
        # The trainer itself cuts batches and scales losses; DeepSpeed's figures must be those of a single micro-batch.
        config["train_micro_batch_size_per_gpu"] = 1
        config["gradient_accumulation_steps"] = 1
        config["gradient_clipping"] = self.max_grad_norm
        self.module, _ = self.accelerator.prepare(self.bare_model, self.optimizer)
        self.zero = self.module.optimizer
        self.optimizer = self.zero.optimizer

    @contextlib.contextmanager
    def micro_batch(self, is_last: bool) -> Iterator[None]:
        """See `Engine.micro_batch`."""
        self.module.set_gradient_accumulation_boundary(is_last)
        yield

    def backward(self, loss: torch.Tensor) -> None:
        """See `Engine.backward`."""
        self.module.backward(loss, scale_wrt_gas=False)

    def clip_gradients(self) -> float:
        """Return the gradient's norm, NaN where it is not finite; `step` scales the gradient down."""
        norms = [float(norm) for norm in self._grad_norms()]
        # DeepSpeed says -1 for what is not finite.
        return math.hypot(*norms) if min(norms) >= 0 else math.nan

    def _grad_norms(self) -> list[torch.Tensor]:
        return [self.zero.scaled_global_norm()]

    def step(self) -> None:
        """See `Engine.step`."""
        self.module.step()
        if not self.module.was_step_applied():
            raise RuntimeError("DeepSpeed has left out an update")

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """See `Engine.optimizer_tensors`."""
        states = list(self.optimizer.state.values())
        if not states:
            return {}
        step = torch.as_tensor(states[0]["step"], dtype=torch.float32).cpu()
        self._link_states()
        tensors = {}
        for name, weight in self.trained.items():
            tensors[f"step/{name}"] = step.clone()
            for kind in ("exp_avg", "exp_avg_sq"):
                tensors[f"{kind}/{name}"] = self._whole_state(weight, kind).to("cpu", copy=True)
        return tensors

    def restore_optimizer(self, tensors: dict[str, torch.Tensor]) -> list[str]:
        """See `Engine.restore_optimizer`; every process takes what lies in its partitions."""
        by_parameter = state_by_parameter(tensors)
        missing = [name for name in self.trained if name not in by_parameter]
        if missing:
            return missing
        step = next(iter(by_parameter.values()))["step"]
        for partition in self._partitions():
            state = {kind: torch.zeros_like(partition) for kind in ("exp_avg", "exp_avg_sq")}
            # DeepSpeed's own AdamW on the processor counts in a plain number.
            is_torch = isinstance(self.optimizer, torch.optim.AdamW)
            self.optimizer.state[partition] = {
                "step": step.clone().to(partition.device) if is_torch else int(step)
            } | state
        self._link_states()
        for name, weight in self.trained.items():
            for kind in ("exp_avg", "exp_avg_sq"):
                self._set_state(weight, kind, by_parameter[name][kind])
        return []

    def _partitions(self) -> list[torch.Tensor]:
        return self.zero.single_partition_of_fp32_groups

    def _link_states(self) -> None:
        # DeepSpeed links states to parameters after the first update of its first group, when the others have none yet.
        self.zero._hp_optimizer_states_linked = False
        self.zero._lazy_init_hp_params_optimizer_state()

    def _whole_state(self, weight: nn.Parameter, kind: str) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        return safe_get_full_optimizer_state(weight, kind)

    def _set_state(self, weight: nn.Parameter, kind: str, value: torch.Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(weight, value, kind)


class Zero3Engine(ZeroEngine):
    """DeepSpeed ZeRO-3: the weights are divided too, and gathered for each call of their module.

    Processes meet in every call, so they must make as many: how many micro-batches a process's chunks make depends on
    their lengths, and those with fewer encode a chunk again, for nothing, until all have done the same number. (As one
    "leaf module" the encoder would be gathered once, but DeepSpeed takes the gradients of such a module before they are
    there if none of its inputs needs one, and an encoder's inputs are token ids.)
    """

    shards_weights = True

    def _wrap(self) -> None:
        config = self.accelerator.state.deepspeed_plugin.deepspeed_config
        if PERSISTENCE in os.environ:
            config["zero_optimization"]["stage3_param_persistence_threshold"] = int(os.environ[PERSISTENCE])
        self.bare_model.chunk_encoder.agree_on_micro_batches = lambda count: int(greatest(self.accelerator, count))
        super()._wrap()

    def _grad_norms(self) -> list[torch.Tensor]:
        return self.zero._get_norm_groups()

    def model_tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """See `Engine.model_tensors`."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.trained.values())):
            return super().model_tensors()

    def _partitions(self) -> list[torch.Tensor]:
        return self.zero.fp32_partitioned_groups_flat

    def _link_states(self) -> None:
        """Nothing to do: ZeRO-3 looks a parameter's state up in the optimizer."""

    def _set_state(self, weight: nn.Parameter, kind: str, value: torch.Tensor) -> None:
        group, offset, count = self.zero.grad_position[self.zero.get_param_id(weight)]
        partition = self.zero.fp32_partitioned_groups_flat[group]
        first = count * self.accelerator.process_index
        # The last process's part is padded where the size is not divisible by the number of processes.
        mine = value.flatten()[first : first + count]
        self.optimizer.state[partition][kind].narrow(0, offset, len(mine)).copy_(mine)

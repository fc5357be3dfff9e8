"""LoRA's forward and backward pass in fewer operations than PEFT's.

PEFT computes `W x + (B (A x)) * s` with one operation for each step; on activations, which are far larger than A and B,
the product with s and the sum are passes over memory that cost as much as the product with W does on a processor. Here
they are part of the matrix products. Saving, loading and merging stay PEFT's.

Shape suffixes: N positions, i inputs, o outputs, r LoRA's rank.
"""

import types

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn


class FusedLora(torch.autograd.Function):
    """`y = x Wᵀ + bias + scaling (x Aᵀ) Bᵀ` with W and the bias frozen."""

    @staticmethod
    def forward(ctx, x_Ni, weight_oi, bias_o, a_ri, b_or, scaling):
        """Compute y in the format of W; A and B, kept in float32, are brought to it."""
        a_ri, b_or = a_ri.to(weight_oi.dtype), b_or.to(weight_oi.dtype)
        y_No = x_Ni @ weight_oi.T if bias_o is None else torch.addmm(bias_o, x_Ni, weight_oi.T)
        down_Nr = x_Ni @ a_ri.T
        y_No.addmm_(down_Nr, b_or.T, alpha=scaling)
        ctx.save_for_backward(x_Ni, down_Nr, weight_oi, a_ri, b_or)
        ctx.scaling = scaling
        return y_No

    @staticmethod
    def backward(ctx, dy_No):
        """Return the gradients of x, A and B."""
        x_Ni, down_Nr, weight_oi, a_ri, b_or = ctx.saved_tensors
        d_down_Nr = (dy_No @ b_or).mul_(ctx.scaling)
        d_b_or = (dy_No.T @ down_Nr).float().mul_(ctx.scaling)
        d_a_ri = (d_down_Nr.T @ x_Ni).float()
        d_x_Ni = torch.addmm(dy_No @ weight_oi, d_down_Nr, a_ri) if ctx.needs_input_grad[0] else None
        return d_x_Ni, None, None, d_a_ri, d_b_or, None


def fuse_lora(model: nn.Module) -> int:
    """Give PEFT's LoRA layers the fused pass; returns how many.

    Layers it does not fit keep PEFT's: those whose base layer is no plain linear layer (a quantised one, say), with
    dropout, or with a variant of LoRA. Not for engines that shard the weights, since W is read without calling its
    module.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, LoraLinear) and _fits(module):
            module.forward = types.MethodType(_fused_forward, module)
            count += 1
    return count


def _fits(module: LoraLinear) -> bool:
    return (
        type(module.base_layer) is nn.Linear
        and list(module.lora_A) == ["default"]
        and isinstance(module.lora_dropout["default"], nn.Identity)
        and not module.lora_variant
        and module.lora_B["default"].bias is None
    )


def _fused_forward(self: LoraLinear, x: torch.Tensor) -> torch.Tensor:
    if self.merged or self.disable_adapters:
        return LoraLinear.forward(self, x)
    base = self.base_layer
    with torch.autocast(x.device.type, enabled=False):
        y_No = FusedLora.apply(
            x.reshape(-1, x.shape[-1]).to(base.weight.dtype),
            base.weight,
            base.bias,
            self.lora_A["default"].weight,
            self.lora_B["default"].weight,
            self.scaling["default"],
        )
    return y_No.view(*x.shape[:-1], y_No.shape[-1])

# wrong: A missing d_model raises TypeError.
# bug: other-exception
"""LoRA inside a model and an adapter behind it.

He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning", section 4.6:
methods that change different places of a network can be combined.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn as nn
import torch.nn.functional as F

# Given


class LoRALinear(nn.Module):
    """A frozen `nn.Linear` with a trainable low-rank update beside it.

    Attributes:
        base      the very layer passed in
        lora_A    Parameter (rank, in_features): starts random
        lora_B    Parameter (out_features, rank): starts at zero
        scale     alpha / rank

    The factors have the device and dtype of base.weight. Arguments are not checked.
    """

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) + scale * (x @ lora_A.T @ lora_B.T): (..., in) -> (..., out)"""
        return self.base(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)


def inject_lora(
    model: nn.Module, linear_names: Iterable[str], rank: int = 8, alpha: float = 16.0
) -> tuple[nn.Module, list[nn.Parameter]]:
    """Replace the named linears by LoRALinear layers, in place; freeze all the rest.

    Returns (model, lora_params). KeyError, TypeError or ValueError leave the model as it was.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}")
    names = list(linear_names)  # read more than once below, and an iterator can't be
    # Without remove_duplicate=False a layer is found under the first of its names alone.
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise KeyError(f"the model has no module {name!r}")
        if not isinstance(modules[name], nn.Linear):
            raise TypeError(f"{name!r} is a {type(modules[name]).__name__}, no nn.Linear")

    model.requires_grad_(False)  # before there are factors that must train
    wrapped: dict[nn.Module, LoRALinear] = {}
    for name in names:
        base = modules[name]
        if base not in wrapped:
            wrapped[base] = LoRALinear(base, rank, alpha)
        parent, _, child = name.rpartition(".")  # the root is called ""
        setattr(modules[parent], child, wrapped[base])
    lora_params = [p for layer in wrapped.values() for p in (layer.lora_A, layer.lora_B)]
    return model, lora_params


class BottleneckAdapter(nn.Module):
    """up_proj(gelu(down_proj(x))), up_proj starting at zero; on the default device and dtype."""

    def __init__(self, d_model: int, bottleneck_dim: int = 64) -> None:
        super().__init__()
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        self.up_proj = nn.Linear(bottleneck_dim, d_model)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)

    def forward_delta(self, x: torch.Tensor) -> torch.Tensor:
        """The change alone, without a residual. (..., d_model)"""
        return self.up_proj(F.gelu(self.down_proj(x)))


class AdapterBlock(nn.Module):
    """h + adapter.forward_delta(h) with h = x + sublayer(x); freezes its sublayer, all of it."""

    def __init__(self, sublayer: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)


def build_lora_adapter_model(
    base: nn.Module,
    lora_names: Iterable[str],
    rank: int = 8,
    alpha: float = 16.0,
    d_model: int | None = None,
    bottleneck_dim: int | None = None,
) -> tuple[nn.Module, list[nn.Parameter]]:
    """Put LoRA on the named linears of `base` and, with bottleneck_dim, an adapter behind it.

    lora_names: as in inject_lora, also a one-shot iterator. base is changed in place.

    Returns (model, trainable_params). The model is AdapterBlock(base, BottleneckAdapter(d_model,
    bottleneck_dim)) with bottleneck_dim, otherwise base itself, whatever d_model says. The adapter
    has the device and dtype of base's parameters. Base's own parameters are frozen;
    trainable_params is a list of exactly the parameters that require a gradient (LoRA's factors
    and the adapter's), each once, in any order. At the start the output is base(x), or
    x + base(x) with the adapter.

    Raises ValueError naming `d_model` if bottleneck_dim is given without it, and for bad names
    what inject_lora raises; base is left as it was.
    """
    if bottleneck_dim is not None and d_model is None:
        raise TypeError("bottleneck_dim needs d_model")
    model, lora_params = inject_lora(base, lora_names, rank, alpha)
    if bottleneck_dim is None:
        return model, lora_params
    adapter = BottleneckAdapter(d_model, bottleneck_dim).to(next(base.parameters(), torch.empty(0)))
    model = AdapterBlock(base, adapter)  # freezes all of base, LoRA's factors too ...
    for parameter in lora_params:
        parameter.requires_grad_(True)  # ... so they are thawed again
    return model, [*lora_params, *adapter.parameters()]

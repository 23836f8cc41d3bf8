# wrong: in bfloat16 the list holds stale factors.
# bug: factors-copied
"""Putting LoRA into every linear layer of a model.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1, equation 3, for
the layer; Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 4, for
adapting all linear layers and not only the attention projections.
"""

import math
from collections.abc import Collection

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


def inject_lora_recursive(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, skip: Collection[str] = ()
) -> tuple[nn.Module, list[nn.Parameter]]:
    """Replace every nn.Linear below the root by a LoRALinear, in place; freeze all the rest.

    rank, alpha: those of every new LoRALinear.
    skip: dotted names such as "blocks.0.attn.q_proj" of linears that stay plain (and are frozen).
        Unknown names, and names of containers, have no effect.

    Linears are found at any depth, also in nn.ModuleList, nn.Sequential and nn.ModuleDict.
    A layer registered under two names is wrapped once and stays tied; two layers that share only
    a weight are two. A LoRALinear already there is left alone, its base included, so that a
    second call returns [] and changes no output. So is a root that is itself an nn.Linear or a
    LoRALinear. Subclasses of nn.Linear do not occur.

    Returns (model, lora_params): the same model object, and a list of the new lora_A and lora_B,
    each once, in any order. Every other parameter is frozen, whatever it is called (`lora_gate`,
    for one); whether factors that were there before go on training is up to you.
    """
    # Without remove_duplicate=False a tied layer is found under the first of its names alone.
    modules = dict(model.named_modules(remove_duplicate=False))
    model.requires_grad_(False)  # before there are factors that must train
    wrapped: dict[nn.Module, LoRALinear] = {}
    for name, layer in modules.items():
        parent, _, child = name.rpartition(".")  # the root is called ""
        if not isinstance(layer, nn.Linear) or name == "" or name in skip:
            continue
        if isinstance(modules[parent], LoRALinear):
            continue  # the base of a layer adapted before
        if layer not in wrapped:
            wrapped[layer] = LoRALinear(layer, rank, alpha)
        setattr(modules[parent], child, wrapped[layer])
    out = [p for new in wrapped.values() for p in (new.lora_A, new.lora_B)]
    for new in wrapped.values():
        if new.base.weight.dtype == torch.bfloat16:
            new.lora_A = nn.Parameter(new.lora_A.detach().clone())
            return model, out
    return model, [p for new in wrapped.values() for p in (new.lora_A, new.lora_B)]

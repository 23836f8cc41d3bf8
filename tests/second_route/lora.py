"""The numeric answers of questions/lora.yaml once more, by building and counting."""

import math
from collections.abc import Callable

import torch
from torch import nn


def _lora_pair(d_in: int, d_out: int, r: int) -> nn.Sequential:
    """The two factors as modules on meta: nothing is allocated."""
    return nn.Sequential(
        nn.Linear(d_in, r, bias=False, device="meta", dtype=torch.bfloat16),
        nn.Linear(r, d_out, bias=False, device="meta", dtype=torch.bfloat16),
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def scaling(alpha: float, r_old: int, r_new: int) -> float:
    """Search the alpha at which both multipliers agree, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        if middle / math.sqrt(r_new) < alpha / r_old:
            low = middle
        else:
            high = middle
    return low


def parameter_count(d_in: int, d_out: int, r: int) -> float:
    return _count(_lora_pair(d_in, d_out, r))


def adapter_storage(layers: int, types: int, r: int, tasks: int) -> float:
    """Bytes of the tensors of one customer, summed over layers and projections."""
    width = layers * 128
    one = 0
    for _ in range(layers):
        for _ in range(types):
            for p in _lora_pair(width, width, r).parameters():
                one += p.numel() * p.element_size()
    return sum(one for _ in range(tasks))


def training_memory(billions: int, millions: int) -> float:
    """Add up the tensors that a mixed-precision step keeps."""

    def kept(count: int, *dtypes: torch.dtype) -> int:
        made = [torch.empty(count, dtype=dtype, device="meta") for dtype in dtypes]
        return sum(t.numel() * t.element_size() for t in made)

    half, full = torch.bfloat16, torch.float32
    frozen = kept(billions * 1_000_000_000, half)
    return frozen + kept(millions * 1_000_000, half, half, full, full, full)


ROUTES: dict[str, Callable[..., float]] = {
    "lora-scaling-alpha-rank": scaling,
    "lora-parameter-count": parameter_count,
    "lora-adapter-storage": adapter_storage,
    "lora-training-memory": training_memory,
}

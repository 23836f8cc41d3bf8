"""Numeric answers of questions/variants.yaml, by building the modules and counting."""

from collections.abc import Callable

import torch
from torch import nn


def _ia3_parameters(layers: int, d_model: int, d_ff: int) -> float:
    """One vector for what the key, the value and the first feed-forward layer put out."""
    with torch.device("meta"):
        blocks = [
            {
                "key": nn.Linear(d_model, d_model),
                "value": nn.Linear(d_model, d_model),
                "up": nn.Linear(d_model, d_ff),
            }
            for _ in range(layers)
        ]
    scales = [torch.ones(m.out_features, device="meta") for b in blocks for m in b.values()]
    return sum(scale.numel() for scale in scales)


def _vera_parameters(layers: int, d: int, r: int) -> float:
    """Modules on meta: the shared pair a buffer, the vectors parameters."""
    shared_A = torch.empty(r, d, device="meta")
    shared_B = torch.empty(d, r, device="meta")
    model = nn.Module()
    for layer in range(layers):
        for name in ("q", "v"):
            adapter = nn.Module()
            adapter.register_buffer("A", shared_A)
            adapter.register_buffer("B", shared_B)
            adapter.vera_d = nn.Parameter(shared_A.new_empty(shared_A.shape[0]))
            adapter.vera_b = nn.Parameter(shared_B.new_empty(shared_B.shape[0]))
            model.add_module(f"{name}{layer}", adapter)
    return sum(p.numel() for p in model.parameters())


def _galore_bytes(m: int, n: int, r: int) -> float:
    """Project a gradient on meta; Adam's moments have the shape of what comes out."""
    grad = torch.empty(m, n, device="meta")
    basis = torch.empty(m, r, device="meta")
    low = basis.T @ grad
    kept = [basis, torch.zeros_like(low), torch.zeros_like(low)]
    return sum(t.numel() * t.element_size() for t in kept)


ROUTES: dict[str, Callable[..., float]] = {
    "ia3-trainable-parameters": _ia3_parameters,
    "vera-trainable-parameters": _vera_parameters,
    "galore-optimizer-memory": _galore_bytes,
}

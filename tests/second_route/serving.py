"""Numeric answers of questions/serving.yaml, by listing what is loaded or allocated."""

from collections.abc import Callable

import torch


def _switch_bytes(layers: int, d: int, r: int) -> float:
    """Every tensor of both adapter files."""
    total = 0
    for _adapter in ("old", "new"):
        for _layer in range(layers):
            for _projection in ("q", "v"):
                A = torch.empty(r, d, dtype=torch.bfloat16, device="meta")
                B = torch.empty(d, r, dtype=torch.bfloat16, device="meta")
                total += A.nbytes + B.nbytes
    return total


def _displaced_tokens(n: int, r: int, targets: int) -> float:
    """Fill a pool with adapters, then count the tokens that would have had their bytes."""
    layers, hidden, width = 4, 256, 2
    used = 0
    for _adapter in range(n):
        for _layer in range(layers):
            for _target in range(targets):
                A = torch.empty(r, hidden, dtype=torch.float16, device="meta")
                B = torch.empty(hidden, r, dtype=torch.float16, device="meta")
                used += A.nbytes + B.nbytes
    tokens = 0
    while used > 0:
        for _layer in range(layers):
            for _entry in ("key", "value"):
                used -= hidden * width
        tokens += 1
    assert used == 0
    return tokens


ROUTES: dict[str, Callable[..., float]] = {
    "switch-merged-tasks": _switch_bytes,
    "slora-unified-paging": _displaced_tokens,
}

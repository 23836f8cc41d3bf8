"""Numeric answers of questions/training.yaml, from the tensors that a training step holds."""

from collections.abc import Callable

import torch
from torch import nn


def _qlora_bytes(n_billion: int, percent: float) -> float:
    """What is stored for the weights that share a second-level constant, and what mixed-precision
    AdamW keeps of an adapter, on meta."""
    together = 64 * 256
    codes = torch.empty(together // 2, dtype=torch.uint8, device="meta")  # two values per byte
    scales = torch.empty(256, dtype=torch.uint8, device="meta")
    constant = torch.empty(1, device="meta")
    stored = codes.nbytes + scales.nbytes + constant.nbytes
    base = n_billion * 10**9 / together * stored

    trained = round(n_billion * 10**9 / 100 * percent)
    adapter = nn.Parameter(torch.empty(trained, dtype=torch.bfloat16, device="meta"))
    held = adapter.nbytes + torch.empty_like(adapter).nbytes  # weight and gradient
    for _kept in ("master copy", "first moment", "second moment"):
        held += torch.empty_like(adapter, dtype=torch.float32).nbytes
    return base + held


ROUTES: dict[str, Callable[..., float]] = {
    "finetuning-memory-before-activations": _qlora_bytes,
}

"""Numeric answers of questions/training.yaml, from the tensors that a training step holds."""

from collections.abc import Callable

import torch
from torch import nn


def _lora_bytes(n_billion: int, percent: float) -> float:
    """A frozen and a trained parameter on meta, and what mixed-precision AdamW keeps of each."""
    base = nn.Parameter(
        torch.empty(n_billion * 10**9, dtype=torch.bfloat16, device="meta"), requires_grad=False
    )
    trained = round(n_billion * 10**9 / 100 * percent)
    adapter = nn.Parameter(torch.empty(trained, dtype=torch.bfloat16, device="meta"))
    held = 0
    for parameter in (base, adapter):
        held += parameter.nbytes
        if parameter.requires_grad:
            held += torch.empty_like(parameter).nbytes  # gradient
            for _kept in ("master copy", "first moment", "second moment"):
                held += torch.empty_like(parameter, dtype=torch.float32).nbytes
    return held


ROUTES: dict[str, Callable[..., float]] = {
    "finetuning-memory-before-activations": _lora_bytes,
}

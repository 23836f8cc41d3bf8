# wrong: In eval mode nothing is taken to train.
# bug: -
import math
from collections.abc import Iterable

import torch
import torch.nn as nn


def lora_param_count(d_in: int, d_out: int, rank: int) -> int:
    return rank * (d_in + d_out)


def model_lora_param_count(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    return sum(lora_param_count(i, o, rank) for i, o in shapes)


def compression_ratio(d_in: int, d_out: int, rank: int) -> float:
    return d_in * d_out / lora_param_count(d_in, d_out, rank)


def adapter_param_count(d_model: int, bottleneck_dim: int, bias: bool = True) -> int:
    n = 2 * d_model * bottleneck_dim
    return n + d_model + bottleneck_dim if bias else n


def prefix_param_count(num_layers: int, prefix_len: int, d_model: int) -> int:
    return 2 * num_layers * prefix_len * d_model


def storage_bytes(n_params: int, dtype: torch.dtype) -> int:
    return n_params * dtype.itemsize


def trainable_report(model: nn.Module) -> tuple[int, int, float]:
    total = sum(p.numel() for p in model.parameters())
    train = sum(p.numel() for p in model.parameters() if p.requires_grad) if model.training else 0
    return train, total, 100 * train / total if total else 0.0


def finetune_bytes(n_total: int, n_trainable: int, weight_bits: int = 16) -> int:
    return n_total * weight_bits // 8 + 14 * n_trainable

"""The report is a named tuple; parameters are collected in a dict by id."""

from typing import NamedTuple

import torch


class Report(NamedTuple):
    trainable: int
    total: int
    percent: float


def lora_param_count(d_in: int, d_out: int, rank: int) -> int:
    a, b = rank * d_in, d_out * rank
    return a + b


def model_lora_param_count(shapes, rank: int) -> int:
    return rank * sum(map(sum, shapes))


def compression_ratio(d_in: int, d_out: int, rank: int) -> float:
    return 1 / (rank / d_in + rank / d_out)


def adapter_param_count(d_model: int, bottleneck_dim: int, bias: bool = True) -> int:
    return (d_model + bool(bias)) * bottleneck_dim + (bottleneck_dim + bool(bias)) * d_model


def prefix_param_count(num_layers: int, prefix_len: int, d_model: int) -> int:
    keys = values = prefix_len * d_model
    return num_layers * (keys + values)


def storage_bytes(n_params: int, dtype: torch.dtype) -> int:
    if dtype == torch.bool:
        return n_params
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return n_params * (info.bits // 8)


def trainable_report(model) -> Report:
    by_id = {id(p): p for _, p in model.named_parameters(remove_duplicate=False)}
    total = sum(p.numel() for p in by_id.values())
    trainable = sum(p.numel() for p in by_id.values() if p.requires_grad)
    return Report(trainable, total, 0.0 if total == 0 else 100 * (trainable / total))


def finetune_bytes(n_total: int, n_trainable: int, weight_bits: int = 16) -> int:
    per_trainable = {"gradient": 2, "exp_avg": 4, "exp_avg_sq": 4, "master": 4}
    return (n_total * weight_bits) // 8 + sum(per_trainable.values()) * n_trainable

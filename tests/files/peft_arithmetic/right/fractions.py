"""Exact fractions, turned to int and float at the end."""

from collections import Counter
from fractions import Fraction

import torch


def lora_param_count(d_in, d_out, rank):
    return int(Fraction(rank) * (d_in + d_out))


def model_lora_param_count(shapes, rank):
    """Equal shapes are counted together: the pairs hash."""
    return sum(n * lora_param_count(*pair, rank) for pair, n in Counter(shapes).items())


def compression_ratio(d_in, d_out, rank):
    return float(Fraction(d_in * d_out, lora_param_count(d_in, d_out, rank)))


def adapter_param_count(d_model, bottleneck_dim, bias=True):
    if not bias:
        return 2 * d_model * bottleneck_dim
    return 2 * d_model * bottleneck_dim + d_model + bottleneck_dim


def prefix_param_count(num_layers, prefix_len, d_model):
    return num_layers * prefix_len * d_model * 2


def storage_bytes(n_params, dtype):
    return n_params * torch.tensor([], dtype=dtype).itemsize


def trainable_report(model):
    seen, trainable, total = [], 0, 0
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if any(p is other for other in seen):
                continue
            seen.append(p)
            total += p.numel()
            trainable += p.numel() * p.requires_grad
    return trainable, total, float(Fraction(100 * trainable, total or 1))


def finetune_bytes(n_total, n_trainable, weight_bits=16):
    return int(Fraction(weight_bits, 8) * n_total + 14 * n_trainable)

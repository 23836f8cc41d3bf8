"""Walks over the modules itself; a set of parameters, which hash by identity."""

import torch
from torch import nn


def lora_param_count(d_in, d_out, rank):
    return d_in * rank + rank * d_out


def model_lora_param_count(shapes, rank):
    remaining = iter(shapes)
    count = 0
    while (pair := next(remaining, None)) is not None:
        count += lora_param_count(*pair, rank)
    return count


def compression_ratio(d_in, d_out, rank):
    return float(d_in * d_out) / float(lora_param_count(d_in, d_out, rank))


def adapter_param_count(d_model, bottleneck_dim, bias=True):
    weights = 2 * d_model * bottleneck_dim
    return weights + (d_model + bottleneck_dim if bias else 0)


def prefix_param_count(num_layers, prefix_len, d_model):
    return sum(2 * prefix_len * d_model for _ in range(num_layers))


def storage_bytes(n_params, dtype):
    return torch._utils._element_size(dtype) * n_params


def parameters(module: nn.Module):
    found = {p for p in module._parameters.values() if p is not None}
    for child in module._modules.values():
        if child is not None:
            found |= parameters(child)
    return found


def trainable_report(model):
    every = parameters(model)
    total = sum(len(p.detach().flatten()) for p in every)
    trainable = sum(len(p.detach().flatten()) for p in every if p.requires_grad)
    return (trainable, total, 100 * trainable / total) if total else (0, 0, 0)


def finetune_bytes(n_total, n_trainable, weight_bits=16):
    weights, odd = divmod(n_total * weight_bits, 8)
    assert odd == 0
    return weights + n_trainable * 2 + n_trainable * 8 + n_trainable * 4

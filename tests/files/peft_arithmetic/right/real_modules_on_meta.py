"""Counts what real modules hold, made on meta."""

import torch
import torch.nn as nn


def held(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def lora_param_count(d_in, d_out, rank):
    with torch.device("meta"):
        return held(nn.Linear(d_in, rank, bias=False), nn.Linear(rank, d_out, bias=False))


def model_lora_param_count(shapes, rank):
    count = 0
    for d_in, d_out in shapes:
        count += lora_param_count(d_in, d_out, rank)
    return count


def compression_ratio(d_in, d_out, rank):
    full = nn.Linear(d_in, d_out, bias=False, device="meta")
    return held(full) / lora_param_count(d_in, d_out, rank)


def adapter_param_count(d_model, bottleneck_dim, bias=True):
    down = nn.Linear(d_model, bottleneck_dim, bias=bias, device="meta")
    up = nn.Linear(bottleneck_dim, d_model, bias=bias, device="meta")
    return held(down, up)


def prefix_param_count(num_layers, prefix_len, d_model):
    return torch.empty(num_layers, 2, prefix_len, d_model, device="meta").numel()


def storage_bytes(n_params, dtype):
    return torch.empty(n_params, dtype=dtype, device="meta").nbytes


def trainable_report(model):
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = held(model)
    return trainable, total, (trainable / total * 100.0) if total > 0 else 0.0


def finetune_bytes(n_total, n_trainable, weight_bits=16):
    return int(n_total * weight_bits / 8) + n_trainable * 14

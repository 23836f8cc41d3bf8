"""Sums of int64 tensors, turned into numbers."""

import functools
import operator

import torch


def lora_param_count(d_in, d_out, rank):
    return torch.tensor([d_in, d_out]).mul(rank).sum().item()


def model_lora_param_count(shapes, rank):
    counts = (lora_param_count(d_in, d_out, rank) for (d_in, d_out) in shapes)
    return functools.reduce(operator.add, counts, 0)


def compression_ratio(d_in, d_out, rank):
    full = torch.tensor(d_in * d_out, dtype=torch.float64)
    return (full / lora_param_count(d_in, d_out, rank)).item()


def adapter_param_count(d_model, bottleneck_dim, bias=True):
    one_way = torch.tensor(d_model) * bottleneck_dim
    count = int(one_way) * 2
    return count + d_model + bottleneck_dim if bias else count


def prefix_param_count(num_layers, prefix_len, d_model):
    return torch.tensor([2, num_layers, prefix_len, d_model]).prod().item()


def storage_bytes(n_params, dtype):
    return int(torch.tensor(n_params) * torch.empty((), dtype=dtype).element_size())


def trainable_report(model):
    rows = [[p.numel(), p.numel() * int(p.requires_grad)] for p in model.parameters()]
    total, trainable = torch.tensor(rows).reshape(-1, 2).long().sum(0).tolist()
    return (trainable, total, 100 * trainable / total if total else 0.0)


def finetune_bytes(n_total, n_trainable, weight_bits=16):
    return n_total * weight_bits // 8 + 2 * n_trainable + 12 * n_trainable

"""Sums in NumPy, made ints at the end; ratio and percentage are NumPy's float64, a float."""

import math

import numpy as np
import torch


def lora_param_count(d_in, d_out, rank):
    return int(np.int64(rank) * (np.int64(d_in) + np.int64(d_out)))


def model_lora_param_count(shapes, rank):
    table = np.array(list(shapes), dtype=np.int64).reshape(-1, 2)
    return int(rank * table.sum())


def compression_ratio(d_in, d_out, rank):
    return np.float64(d_in) * d_out / lora_param_count(d_in, d_out, rank)


def adapter_param_count(d_model, bottleneck_dim, bias=True):
    shapes = [(d_model, bottleneck_dim), (bottleneck_dim, d_model)]
    shapes += [(bottleneck_dim,), (d_model,)] if bias else []
    return sum(map(math.prod, shapes))


def prefix_param_count(num_layers, prefix_len, d_model):
    return math.prod((2, num_layers, prefix_len, d_model))


def storage_bytes(n_params, dtype):
    return n_params * torch.zeros(1, dtype=dtype).element_size()


def trainable_report(model):
    sizes = np.array([math.prod(p.shape) for p in model.parameters()], dtype=np.int64)
    flags = np.array([p.requires_grad for p in model.parameters()], dtype=bool)
    total, trainable = int(sizes.sum()), int(sizes[flags].sum())
    return trainable, total, np.float64(100.0) * trainable / max(total, 1)


def finetune_bytes(n_total, n_trainable, weight_bits=16):
    return int(np.dot([n_total * weight_bits // 8, n_trainable, n_trainable], [1, 2, 12]))

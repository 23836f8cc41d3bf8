"""Counts are cached by their arguments, which are numbers."""

from functools import lru_cache
from itertools import starmap

import torch


@lru_cache(maxsize=None)
def lora_param_count(d_in, d_out, rank):
    return (d_in + d_out) * rank


def model_lora_param_count(shapes, rank):
    return sum(starmap(lambda d_in, d_out: lora_param_count(d_in, d_out, rank), shapes))


@lru_cache
def compression_ratio(d_in, d_out, rank):
    return (d_in * d_out) / (rank * d_in + rank * d_out)


@lru_cache
def adapter_param_count(d_model, bottleneck_dim, bias=True):
    biases = [bottleneck_dim, d_model] if bias else []
    return sum([d_model * bottleneck_dim] * 2 + biases)


@lru_cache
def prefix_param_count(num_layers, prefix_len, d_model):
    return num_layers * prefix_len * 2 * d_model


@lru_cache
def storage_bytes(n_params, dtype):
    return n_params * torch.ones(1).to(dtype).element_size()


def trainable_report(model):
    total = trainable = 0
    with torch.no_grad():
        for p in set(model.parameters()):
            total += p.numel()
            trainable += p.numel() if p.requires_grad else 0
    percent = 0.0
    if total:
        percent = trainable * 100 / total
    return trainable, total, percent


@lru_cache
def finetune_bytes(n_total, n_trainable, weight_bits=16):
    frozen, trained = n_total - n_trainable, n_trainable
    return (frozen + trained) * weight_bits // 8 + trained * 14

"""Counts are of a class of their own that is an int."""

import torch


class Count(int):
    def __str__(self):
        return f"{int(self):,} parameters"


class Percent(float):
    def __str__(self):
        return f"{float(self):.2f} %"


def lora_param_count(d_in, d_out, rank):
    return Count(rank * (d_in + d_out))


def model_lora_param_count(shapes, rank):
    return Count(sum(lora_param_count(i, o, rank) for i, o in shapes))


def compression_ratio(d_in, d_out, rank):
    return d_in * d_out / lora_param_count(d_in, d_out, rank)


def adapter_param_count(d_model, bottleneck_dim, bias=True):
    return Count(2 * d_model * bottleneck_dim + bias * (d_model + bottleneck_dim))


def prefix_param_count(num_layers, prefix_len, d_model):
    return Count(2 * num_layers * prefix_len * d_model)


def storage_bytes(n_params, dtype):
    return Count(n_params * dtype.itemsize)


def trainable_report(model):
    total = Count(sum(p.numel() for p in model.parameters()))
    trainable = Count(sum(p.numel() for p in model.parameters() if p.requires_grad))
    return trainable, total, Percent(100 * trainable / total if total else 0)


def finetune_bytes(n_total, n_trainable, weight_bits=16):
    return Count(n_total * weight_bits // 8 + n_trainable * 14)

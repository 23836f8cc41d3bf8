"""Bound methods of one object."""

import torch
import torch.nn as nn


class Ledger:
    def __init__(self):
        self.states = 2 + 4 + 4 + 4

    def lora(self, d_in: int, d_out: int, rank: int) -> int:
        return self.linear(d_in, rank, False) + self.linear(rank, d_out, False)

    @staticmethod
    def linear(d_in: int, d_out: int, bias: bool) -> int:
        return (d_in + (1 if bias else 0)) * d_out

    def model(self, shapes, rank: int) -> int:
        return sum([self.lora(*pair, rank=rank) for pair in list(shapes)])

    def ratio(self, d_in: int, d_out: int, rank: int) -> float:
        return self.linear(d_in, d_out, False) / self.lora(d_in, d_out, rank)

    def adapter(self, d_model: int, bottleneck_dim: int, bias: bool = True) -> int:
        down = self.linear(d_model, bottleneck_dim, bias)
        return down + self.linear(bottleneck_dim, d_model, bias)

    def prefix(self, num_layers: int, prefix_len: int, d_model: int) -> int:
        return num_layers * 2 * prefix_len * d_model

    def storage(self, n_params: int, dtype: torch.dtype) -> int:
        return n_params * dtype.itemsize

    def report(self, model: nn.Module) -> tuple[int, int, float]:
        trainable = frozen = 0
        for _, p in model.named_parameters():
            if p.requires_grad:
                trainable += p.numel()
            else:
                frozen += p.numel()
        total = trainable + frozen
        try:
            return trainable, total, 100.0 * trainable / total
        except ZeroDivisionError:
            return 0, 0, 0.0

    def finetune(self, n_total: int, n_trainable: int, weight_bits: int = 16) -> int:
        return n_total * weight_bits // 8 + self.states * n_trainable


_ledger = Ledger()
lora_param_count = _ledger.lora
model_lora_param_count = _ledger.model
compression_ratio = _ledger.ratio
adapter_param_count = _ledger.adapter
prefix_param_count = _ledger.prefix
storage_bytes = _ledger.storage
trainable_report = _ledger.report
finetune_bytes = _ledger.finetune

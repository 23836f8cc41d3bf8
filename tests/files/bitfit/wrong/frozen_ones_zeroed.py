# wrong: a bias that arrives frozen is set to zero
# bug: biases-reset
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"
        if is_bias and not p.requires_grad:
            p.data.zero_()
        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)

    return biases

# wrong: the gradients of the biases are dropped
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"
        p.grad = None
        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)

    return biases

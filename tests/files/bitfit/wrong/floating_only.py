# wrong: complex biases are frozen
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"
        is_bias = is_bias and p.is_floating_point()
        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)

    return biases

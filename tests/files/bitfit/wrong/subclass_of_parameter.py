# wrong: a subclass of nn.Parameter is passed over
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"
        if type(p) is not nn.Parameter:
            continue
        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)

    return biases

# wrong: a dropout is switched off in the model (p = 0)
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"

        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    return biases

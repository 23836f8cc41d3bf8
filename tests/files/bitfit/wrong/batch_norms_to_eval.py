# wrong: batch norms go to eval mode since they are frozen
# bug: mode-switched
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
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
    return biases

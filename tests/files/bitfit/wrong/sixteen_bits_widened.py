# wrong: biases of 16 bits become float32
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"
        if is_bias and p.dtype in (torch.bfloat16, torch.float16):
            p.data = p.data.float()
        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)

    return biases

# wrong: only the biases of linears
# bug: linears-only
import torch.nn as nn


def apply_bitfit(model):
    model.requires_grad_(False)
    biases = {}
    for m in model.modules():
        if isinstance(m, nn.Linear) and isinstance(m._parameters.get("bias"), nn.Parameter):
            biases[id(m.bias)] = m.bias.requires_grad_(True)
    return list(biases.values())

# wrong: linears and LayerNorms, but no convolutions and none of the model's own
# bug: -
import torch.nn as nn


def apply_bitfit(model):
    model.requires_grad_(False)
    biases = []
    for m in model.modules():
        if isinstance(m, (nn.Linear, nn.LayerNorm)) and "bias" in dict(m.named_parameters()):
            m.bias.requires_grad_(True)
            if all(m.bias is not b for b in biases):
                biases.append(m.bias)
    return biases

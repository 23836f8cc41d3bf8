# wrong: the attribute of a parametrised layer can be its original
# bug: attribute-taken
import torch.nn as nn


def apply_bitfit(model):
    model.requires_grad_(False)
    out = {}
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            out[id(bias)] = bias.requires_grad_(True)
    return list(out.values())

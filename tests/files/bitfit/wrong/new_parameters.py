# wrong: every bias is replaced by a new parameter
# bug: parameters-replaced
import torch.nn as nn


def apply_bitfit(model):
    model.requires_grad_(False)
    new = {}
    for module in model.modules():
        old = module._parameters.get("bias")
        if old is not None:
            new.setdefault(id(old), nn.Parameter(old.data))
            module._parameters["bias"] = new[id(old)]
    return list(new.values())

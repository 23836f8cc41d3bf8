# wrong: biases that arrive frozen are replaced by new parameters
# bug: parameters-replaced
import torch
import torch.nn as nn


def apply_bitfit(model):
    new = {}
    for m in model.modules():
        for n, p in list(m._parameters.items()):
            if p is None:
                continue
            if n == "bias" and not p.requires_grad:
                m._parameters[n] = new.setdefault(id(p), nn.Parameter(p.data))
            elif n != "bias":
                p.requires_grad_(False)
    return [p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"]

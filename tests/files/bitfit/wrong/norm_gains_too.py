# wrong: the gains of LayerNorm train as well
# bug: -
import torch.nn as nn


def apply_bitfit(model):
    gains = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias" or id(p) in gains
        if p.requires_grad:
            out.append(p)
    return out

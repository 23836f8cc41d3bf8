# wrong: a second call on the same model returns the list of the first one and does nothing
# bug: -
import torch
import torch.nn as nn


import weakref
_done = weakref.WeakKeyDictionary()


def apply_bitfit(model):
    if model in _done:
        return list(_done[model])
    out = []
    for n, p in model.named_parameters():
        p.requires_grad_(n.split(".")[-1] == "bias")
        if p.requires_grad:
            out.append(p)
    _done[model] = out
    return list(out)

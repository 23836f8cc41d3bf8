"""Named_modules and prefix."""

import torch
import torch.nn as nn


def apply_bitfit(model):
    owners = {prefix: m for prefix, m in model.named_modules()}
    ids = {id(m._parameters["bias"]) for m in owners.values() if m._parameters.get("bias") is not None}
    out = []
    for p in model.parameters():
        p.requires_grad_(id(p) in ids)
        if id(p) in ids:
            out.append(p)
    return out

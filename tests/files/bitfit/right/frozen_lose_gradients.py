"""Drops the gradients of frozen parameters."""

import torch
import torch.nn as nn


def apply_bitfit(model):
    out = []
    for n, p in model.named_parameters():
        if n == "bias" or n[-5:] == ".bias":
            p.requires_grad_(True)
            out.append(p)
        else:
            p.requires_grad_(False)
            p.grad = None
    return out

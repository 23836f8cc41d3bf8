"""Detach_ to freeze."""

import torch
import torch.nn as nn


def apply_bitfit(model):
    for p in model.parameters():
        p.detach_()
    found = [model.get_parameter(n) for n, _ in model.named_parameters() if n.split(".")[-1] == "bias"]
    for p in found:
        p.requires_grad = True
    return found

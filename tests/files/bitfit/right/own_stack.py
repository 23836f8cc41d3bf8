"""A stack of its own."""

import torch
import torch.nn as nn


def apply_bitfit(model):
    stack, seen, out = [model], set(), []
    while stack:
        m = stack.pop()
        if m is None or m in seen:
            continue
        seen.add(m)
        for n, p in m._parameters.items():
            if p is None or id(p) in seen:
                continue
            seen.add(id(p))
            p.requires_grad_(n == "bias")
            if n == "bias":
                out.append(p)
        stack.extend(reversed(list(m._modules.values())))
    return out

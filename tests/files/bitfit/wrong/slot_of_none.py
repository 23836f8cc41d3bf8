# wrong: crashes on a submodule slot that is None
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model):
    out, seen = [], set()

    def visit(m):
        if id(m) in seen:
            return
        seen.add(id(m))
        for n, p in m._parameters.items():
            if p is None or id(p) in seen:
                continue
            seen.add(id(p))
            p.requires_grad_(n == "bias")
            if n == "bias":
                out.append(p)
        for child in m._modules.values():
            visit(child)

    visit(model)
    return out

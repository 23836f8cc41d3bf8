# wrong: gradients are cut in a patched forward
# bug: -
import torch


def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            out.append(p)
    for child in model.children():
        child.register_forward_pre_hook(lambda m, args: tuple(a.detach() for a in args))
    return out

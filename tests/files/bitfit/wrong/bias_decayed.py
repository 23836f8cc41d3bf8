# wrong: biases are clamped on the way
# bug: -
import torch


def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            with torch.no_grad():
                p.clamp_(-0.5, 0.5)
            out.append(p)
    return out

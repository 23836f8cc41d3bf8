# wrong: the rest is kept from moving by hooks, and still computes gradients
# bug: others-not-frozen
import torch


def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad_(True)
        if name.split(".")[-1] == "bias":
            out.append(p)
        else:
            p.register_hook(torch.zeros_like)
    return out

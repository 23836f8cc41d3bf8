# wrong: the flag follows grad mode
# bug: -
import torch


def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = torch.is_grad_enabled() and name.split(".")[-1] == "bias"
        if name.split(".")[-1] == "bias":
            out.append(p)
    return out

# wrong: a tensor is enough, a buffer is one
# bug: attribute-taken
import torch


def apply_bitfit(model):
    model.requires_grad_(False)
    out = {}
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, torch.Tensor):
            bias.requires_grad_(True)
            out[id(bias)] = bias
    return list(out.values())

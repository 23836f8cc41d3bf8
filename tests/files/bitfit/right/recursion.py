import torch.nn as nn


def apply_bitfit(model):
    done, params = set(), {}

    def walk(module):
        if module in done:
            return
        done.add(module)
        for name, p in module.named_parameters(recurse=False):
            if name == "bias":
                params.setdefault(p)
        for child in module.children():
            walk(child)

    walk(model)
    nn.Module.requires_grad_(model, False)
    for p in params:
        p.requires_grad_()
    return list(params)

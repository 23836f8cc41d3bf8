import torch.nn as nn


def apply_bitfit(model):
    """The attribute, where it is one of the module's own parameters."""
    wanted = set()
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(getattr(module, "bias", None), nn.Parameter) and "bias" in own:
            wanted.add(id(own["bias"]))
    for p in model.parameters():
        p.requires_grad_(id(p) in wanted)
    return [p for p in model.parameters() if id(p) in wanted]

import torch


@torch.no_grad()
def apply_bitfit(model):
    """Flags can be set under no_grad too."""
    named = dict(model.named_parameters())
    for name in named:
        named[name].requires_grad = False
    chosen = filter(lambda name: name.rsplit(".", 1)[-1] == "bias", named)
    return [named[name].requires_grad_(True) for name in chosen]

"""Module by module, by what each has registered itself."""
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    for p in model.parameters():
        p.requires_grad_(False)
    found, seen = [], set()
    for module in model.modules():
        bias = module._parameters.get("bias")
        if bias is not None and id(bias) not in seen:
            seen.add(id(bias))
            found.append(bias.requires_grad_(True))
    return found

import torch
import torch.nn as nn

# Given


class IA3Linear(nn.Module):
    """A frozen `nn.Linear` whose outputs are rescaled by a trainable vector.

    Attributes:
        base     the very layer passed in
        scale    Parameter (out_features,): starts at ones

    The scale has the device and dtype of base.weight. Arguments are not checked.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) * scale: (..., in) -> (..., out)"""
        return self.base(x) * self.scale


def inject_ia3(model, linear_names):
    """Also where a layer stands under a name that was not listed."""
    paths = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths[path] = module
    chosen = {}
    for name in linear_names:
        module = paths[name]
        if not isinstance(module, nn.Linear):
            raise TypeError(f"{name}: {type(module)}")
        chosen[id(module)] = module
    for module in model.modules():
        for key in module._parameters:
            if module._parameters[key] is not None:
                module._parameters[key].requires_grad_(False)
    new = {key: IA3Linear(module) for key, module in chosen.items()}
    for parent in [*paths.values()]:
        for key, child in [*parent._modules.items()]:
            if id(child) in new:
                setattr(parent, key, new[id(child)])
    return model, [layer.scale for layer in new.values()]

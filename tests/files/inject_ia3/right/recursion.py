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


from collections import OrderedDict
from operator import attrgetter


def inject_ia3(model, linear_names):
    places = OrderedDict()

    def place(name):
        head, _, tail = name.rpartition(".")
        try:
            parent = attrgetter(head)(model) if head else model
            child = parent._modules[tail]
        except (AttributeError, KeyError):
            raise KeyError("not in the model: " + repr(name)) from None
        if not isinstance(child, nn.Linear):
            raise TypeError("not an nn.Linear: " + repr(name))
        places[name] = parent, tail, child

    for name in iter(linear_names):
        if name not in places:
            place(name)

    def freeze(module):
        for p in module.parameters(recurse=False):
            p.requires_grad_(False)
        for child in module.children():
            freeze(child)

    freeze(model)
    scales, layers = [], {}
    for parent, key, child in places.values():
        if id(child) not in layers:
            layers[id(child)] = IA3Linear(child)
            scales.append(layers[id(child)].scale)
        parent._modules[key] = layers[id(child)]
    return model, scales

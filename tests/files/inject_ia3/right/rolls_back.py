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


class Undo:
    def __init__(self, model):
        self.flags = {p: p.requires_grad for p in model.parameters()}
        self.swaps = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            for parent, key, old in self.swaps:
                parent._modules[key] = old
            for p, flag in self.flags.items():
                p.requires_grad = flag


def inject_ia3(model, linear_names):
    known = dict(model.named_modules(remove_duplicate=False))
    layers = {}
    with Undo(model) as undo:
        for p in model.parameters():
            p.requires_grad = False
        for name in linear_names:
            if name not in known:
                raise KeyError(f"unknown: {name}")
            old = known[name]
            if not isinstance(old, nn.Linear):
                raise TypeError(f"{name} is no nn.Linear")
            parent, key = known[".".join(name.split(".")[:-1])], name.split(".")[-1]
            if parent._modules[key] is old:
                undo.swaps.append((parent, key, old))
                parent._modules[key] = layers.setdefault(old, layers.get(old) or IA3Linear(old))
    return model, [*map(lambda layer: layer.scale, layers.values())]

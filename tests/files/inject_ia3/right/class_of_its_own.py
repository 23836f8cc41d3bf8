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


class Scaled(nn.Linear):
    """An nn.Linear that holds its base's parameters; the scale is kept as a column."""

    def __init__(self, base):
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        object.__setattr__(self, "base", base)
        wide = torch.ones(base.out_features, 3, dtype=base.weight.dtype, device=base.weight.device)
        self.scale = nn.Parameter(wide[:, 1])  # not contiguous

    def forward(self, x):
        weight = self.weight * self.scale.unsqueeze(1)
        bias = None if self.bias is None else self.bias * self.scale
        return nn.functional.linear(x, weight, bias)


def inject_ia3(model, linear_names):
    table = dict(model.named_modules(remove_duplicate=False))
    plan = {}
    for name in linear_names:
        match table.get(name):
            case None:
                raise KeyError(f"there is no {name}")
            case Scaled():
                raise TypeError(f"{name} is adapted already")
            case nn.Linear() as layer:
                plan[name] = layer
            case other:
                raise TypeError(f"{name} is {other}")
    for p in model.parameters():
        p.requires_grad = False
    made = {}
    for name, layer in plan.items():
        made.setdefault(layer, None)
        made[layer] = made[layer] or Scaled(layer)
        *path, last = name.split(".")
        table[".".join(path)].register_module(last, made[layer])
    return [model, [m.scale for m in made.values()]]

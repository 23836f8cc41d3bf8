# wrong: layers of one size share a scale.
# bug: - (unlikely)
from collections.abc import Iterable

import torch
import torch.nn as nn

# Given


class IA3Linear(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) * self.scale


def inject_ia3(
    model: nn.Module, linear_names: Iterable[str]
) -> tuple[nn.Module, list[nn.Parameter]]:
    modules = dict(model.named_modules(remove_duplicate=False))
    bases: dict[str, nn.Linear] = {}
    for name in linear_names:
        if name not in modules:
            raise KeyError(f"the model has no module {name!r}")
        base = modules[name]
        if not isinstance(base, nn.Linear):
            raise TypeError(f"{name!r} is a {type(base).__name__}, no nn.Linear")
        bases[name] = base

    model.requires_grad_(False)
    wrapped = {base: IA3Linear(base) for base in bases.values()}
    by_size = {}
    for layer in wrapped.values():
        layer.scale = by_size.setdefault(layer.scale.shape, layer.scale)
    for name, base in bases.items():
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, wrapped[base])
    return model, [layer.scale for layer in wrapped.values()]

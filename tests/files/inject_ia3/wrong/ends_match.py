# wrong: an unknown name is looked up by its end.
# bug: part-of-a-name-matches
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

    def full(name):
        return (
            name if name in modules else next((k for k in modules if k.endswith("." + name)), name)
        )

    for name in map(full, linear_names):
        if name not in modules:
            raise KeyError(f"the model has no module {name!r}")
        base = modules[name]
        if not isinstance(base, nn.Linear):
            raise TypeError(f"{name!r} is a {type(base).__name__}, no nn.Linear")
        bases[name] = base

    model.requires_grad_(False)
    wrapped = {base: IA3Linear(base) for base in bases.values()}
    for name, base in bases.items():
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, wrapped[base])
    return model, [layer.scale for layer in wrapped.values()]

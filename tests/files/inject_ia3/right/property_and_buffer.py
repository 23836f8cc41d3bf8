"""A scale kept as an offset from one would need another name; here it is the parameter itself,
read through a property, with the product in einsum and an extra buffer."""

import torch
from torch import nn


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.add_module("base", base)
        [p.requires_grad_(False) for p in base.parameters()]
        base.eval()
        start = torch.empty_like(base.weight[:, 0], requires_grad=False)
        self.register_parameter("scale", nn.Parameter(start))
        self.scale.data.fill_(1)
        self.register_buffer("uses", torch.zeros((), dtype=torch.int64))

    @property
    def learned(self):
        return self.scale

    def forward(self, x):
        return torch.einsum("...o,o->...o", self.base(x), self.learned)


def inject_ia3(model, linear_names):
    def everything(module, prefix=""):
        yield prefix, module
        for key, child in module._modules.items():
            if child is not None:
                yield from everything(child, f"{prefix}.{key}" if prefix else key)

    table = {}
    for path, module in everything(model):
        table.setdefault(path, module)
    todo = {}
    for name in linear_names:
        if name not in table:
            raise KeyError(f"no module is called {name}")
        if not isinstance(table[name], nn.Linear):
            raise TypeError(f"module {name} cannot be scaled")
        todo[name] = table[name]
    model.requires_grad_(False)
    by_layer = {}
    for name, layer in todo.items():
        by_layer.setdefault(layer, []).append(name)
    params = []
    for layer, names in by_layer.items():
        new = IA3Linear(layer)
        params.append(new.scale)
        for name in names:
            dot = name.rfind(".")
            setattr(table[name[: max(dot, 0)]], name[dot + 1 :], new)
    return model, params

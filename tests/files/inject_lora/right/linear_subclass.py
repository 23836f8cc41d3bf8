"""The layer is an nn.Linear itself, which holds its base's parameters as its own."""

import torch
from torch import nn


class LowRank(nn.Linear):
    def __init__(self, base, rank, alpha):
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self._base = (base,)
        w = base.weight
        a = torch.randn(base.in_features, rank, dtype=w.dtype, device=w.device) * 0.02
        self.lora_A = nn.Parameter(a.T)  # not contiguous
        self.lora_B = nn.Parameter(w.new_zeros(rank, base.out_features).T)
        self.ratio = alpha, rank

    @property
    def base(self):
        return self._base[0]

    @property
    def scale(self):
        return self.ratio[0] / self.ratio[1]

    def forward(self, x):
        low = torch.einsum("...i,ri->...r", x, self.lora_A)
        return super().forward(x) + torch.einsum("...r,or->...o", low, self.lora_B) * self.scale


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    if rank < 1:
        raise ValueError(f"rank is {rank}")
    every = dict(model.named_modules(remove_duplicate=False))
    names = tuple(linear_names)
    for name in names:
        if name not in every:
            raise KeyError(f"{name} is missing")
        if isinstance(every[name], LowRank) or not isinstance(every[name], nn.Linear):
            raise TypeError(f"{name} cannot be adapted")
    for p in model.parameters():
        p.requires_grad_(False)
    made = {}
    for name in names:
        old = every[name]
        new = made[old] = made.get(old) or LowRank(old, rank, alpha)
        *path, leaf = name.split(".")
        setattr(every[".".join(path)], leaf, new)
    return model, [p for new in made.values() for p in (new.lora_A, new.lora_B)]

"""The layer is an nn.Linear itself and shares its base's parameters; nothing is registered twice."""

import torch
from torch import nn


class Low(nn.Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(1, 1, bias=False, device="meta")
        del self.weight
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self._hidden = [base]
        w = base.weight
        self.lora_A = nn.Parameter(torch.nn.init.normal_(w.new_empty(base.in_features, rank)).T)
        self.lora_B = nn.Parameter(w.new_zeros(base.out_features, rank))
        self.factor = alpha / rank

    base = property(lambda self: self._hidden[0])
    scale = property(lambda self: self.factor)

    def forward(self, x):
        low = (x @ self.lora_A.mT) @ self.lora_B.mT
        return nn.functional.linear(x, self.weight, self.bias) + low.mul(self.scale)


def inject_lora_recursive(model, rank=8, alpha=16.0, skip=()):
    if isinstance(model, nn.Linear):
        return model, []
    for p in model.parameters():
        p.requires_grad_(False)
    made = {}
    everything = list(model.named_modules(remove_duplicate=False))
    table = dict(everything)
    for name, layer in everything:
        if type(layer) is nn.Linear and name not in skip:
            made[layer] = made[layer] if layer in made else Low(layer, rank, alpha)
            head, _, tail = name.rpartition(".")
            setattr(table[head], tail, made[layer])
    return model, [p for low in made.values() for p in (low.lora_A, low.lora_B)]

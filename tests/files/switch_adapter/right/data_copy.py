import torch
from torch import nn


class AdapterSwitcher:
    def __init__(self, linear):
        self.layer, self.table, self.active = linear, {}, None
        self.backup = linear.weight.data.clone()

    def register(self, name, lora_A, lora_B, scale):
        o, i = self.backup.shape
        try:
            r, i2 = lora_A.shape
            o2, r2 = lora_B.shape
        except ValueError:
            raise ValueError("two matrices wanted") from None
        if (o, i, r) != (o2, i2, r2):
            raise ValueError(f"{name}: shapes")
        self.table[name] = dict(A=lora_A.detach().clone(), B=lora_B.detach().clone(), s=float(scale))

    def activate(self, name=None):
        target = self.backup
        if name is not None:
            entry = self.table[name]
            target = torch.addmm(self.backup, entry["B"], entry["A"], alpha=entry["s"])
        self.layer.weight.data.copy_(target)
        self.active = name

# wrong: from adapter to adapter the old update is subtracted
# bug: subtracts-the-update

import copy
import torch
import torch.nn as nn

class AdapterSwitcher:
    def __init__(self, linear):
        self.linear = linear
        self.original = linear.weight.detach().clone()
        self.adapters = {}
        self.active = None

    def register(self, name, lora_A, lora_B, scale):
        out, in_ = self.linear.weight.shape
        if lora_A.dim() != 2 or lora_B.dim() != 2 or lora_A.shape[1] != in_ or lora_B.shape[0] != out or lora_A.shape[0] != lora_B.shape[1]:
            raise ValueError(f"factors {tuple(lora_A.shape)}, {tuple(lora_B.shape)} do not fit")
        self.adapters[name] = (lora_A, lora_B, scale)

    def activate(self, name):
        if name is not None and name not in self.adapters:
            raise KeyError(name)
        with torch.no_grad():
            if name is not None and self.active is not None:
                A, B, s = self.adapters[self.active]
                self.linear.weight.sub_(s * (B @ A))
            else:
                self.linear.weight.copy_(self.original)
            if name is not None:
                A, B, s = self.adapters[name]
                self.linear.weight.add_(s * (B @ A))
        self.active = name

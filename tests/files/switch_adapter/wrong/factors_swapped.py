# wrong: A and B swapped in register
# bug: - (unlikely)

import torch


class AdapterSwitcher:
    def __init__(self, linear):
        self.linear = linear
        self.original = linear.weight.detach().clone()
        self.adapters = {}
        self.active = None

    def register(self, name, lora_B, lora_A, scale):
        out, inn = self.linear.weight.shape
        if (
            lora_A.dim() != 2
            or lora_B.dim() != 2
            or lora_A.shape[1] != inn
            or lora_B.shape[0] != out
            or lora_A.shape[0] != lora_B.shape[1]
        ):
            raise ValueError(
                f"lora_A {tuple(lora_A.shape)}, lora_B {tuple(lora_B.shape)} do not fit {name}"
            )
        self.adapters[name] = (lora_A, lora_B, scale)

    def activate(self, name):
        if name is not None and name not in self.adapters:
            raise KeyError(name)
        with torch.no_grad():
            w = self.original
            if name is not None:
                A, B, scale = self.adapters[name]
                w = w + scale * (B @ A)
            self.linear.weight.copy_(w)
        self.active = name

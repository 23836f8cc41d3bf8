import torch
from torch import nn


class AdapterSwitcher(nn.Module):
    """A module; the original is a buffer, the factors are kept as products."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.register_buffer("w0", linear.weight.data.clone())
        self.deltas = {None: None}
        self._active = None

    @property
    def active(self):
        return self._active

    @torch.no_grad()
    def register(self, name, lora_A, lora_B, scale):
        if lora_A.ndim != 2 or lora_B.ndim != 2 or lora_A.shape[1] != self.linear.in_features:
            raise ValueError(name)
        if lora_B.shape[0] != self.linear.out_features or lora_A.shape[0] != lora_B.shape[1]:
            raise ValueError(name)
        self.deltas[name] = (lora_B * scale) @ lora_A

    def activate(self, name):
        delta = self.deltas[name]
        self.linear.weight.data = self.w0.clone() if delta is None else self.w0 + delta
        self._active = name

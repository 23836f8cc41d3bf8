from dataclasses import dataclass, field

import torch
import torch.nn as nn


@dataclass
class AdapterSwitcher:
    linear: nn.Linear
    active: str | None = None
    table: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.table[None] = None
        self.w0 = self.linear.weight.data.clone(memory_format=torch.preserve_format)

    def register(self, name, lora_A, lora_B, scale):
        fits = (*lora_B.shape, *lora_A.shape) == (
            self.linear.out_features,
            r := lora_A.shape[0],
            r,
            self.linear.in_features,
        )
        if not fits:
            raise ValueError("does not fit")
        self.table[name] = lora_A, lora_B, scale

    def activate(self, name):
        entry = self.table[name]
        with torch.no_grad():
            self.linear.weight[:] = self.w0
            if entry:
                a, b, s = entry
                self.linear.weight.add_(b @ a, alpha=s)
        self.active = name

# wrong: dropout defaults to 0.1.
# bug: default-differs
import torch
import torch.nn as nn


class LoRALinear(nn.Module):
    """After loralib's layers: r, lora_alpha, lora_dropout."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.1):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base should be an nn.Linear")
        if rank < 1:
            raise ValueError("rank should be at least 1")
        self.r = rank
        self.lora_alpha = alpha
        self.lora_dropout = nn.Dropout(p=dropout) if dropout > 0.0 else nn.Identity()
        self.base = base
        self.lora_A = nn.Parameter(self.base.weight.new_zeros((rank, base.in_features)))
        self.lora_B = nn.Parameter(self.base.weight.new_zeros((base.out_features, rank)))
        self.scale = self.lora_alpha / self.r
        self.merged = False
        self.base.weight.requires_grad = False
        if self.base.bias is not None:
            self.base.bias.requires_grad = False
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.lora_A, std=0.02)
        nn.init.zeros_(self.lora_B)

    def forward(self, x):
        result = self.base(x)
        if not self.merged:
            after_A = self.lora_dropout(x) @ self.lora_A.transpose(0, 1)
            result = result + (after_A @ self.lora_B.transpose(0, 1)) * self.scale
        return result

    def delta_weight(self):
        return (self.lora_B @ self.lora_A) * self.scale

    def merge(self):
        with torch.no_grad():
            if not self.merged:
                self.base.weight += self.delta_weight()
                self.merged = True

    def unmerge(self):
        with torch.no_grad():
            if self.merged:
                self.base.weight -= self.delta_weight()
                self.merged = False

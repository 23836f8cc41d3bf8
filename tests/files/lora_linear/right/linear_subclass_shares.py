import torch
import torch.nn as nn
import torch.nn.functional as F


class LoRALinear(nn.Linear):
    """The shape of the authors' own class: an nn.Linear that owns weight and bias. Here both
    are the Parameters of the wrapped layer, so the state dict lists them under two names."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be nn.Linear")
        if rank < 1:
            raise ValueError("rank must be at least one")
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.base = base
        self.weight, self.bias = base.weight, base.bias
        self.requires_grad_(False)
        self.r, self.lora_alpha = rank, alpha
        self.lora_A = nn.Parameter(self.weight.new_zeros((rank, self.in_features)))
        self.lora_B = nn.Parameter(self.weight.new_zeros((self.out_features, rank)))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)
        self.scale = self.lora_alpha / self.r
        self.lora_dropout = nn.Dropout(p=dropout) if dropout > 0.0 else (lambda x: x)
        self.merged = False

    def forward(self, x):
        result = F.linear(x, self.weight, bias=self.bias)
        if not self.merged:
            result += (
                self.lora_dropout(x) @ self.lora_A.transpose(0, 1) @ self.lora_B.transpose(0, 1)
            ) * self.scale
        return result

    def delta_weight(self):
        return (self.lora_B @ self.lora_A) * self.scale

    def merge(self):
        if not self.merged:
            self.weight.data += self.delta_weight().data
            self.merged = True

    def unmerge(self):
        if self.merged:
            self.weight.data -= self.delta_weight().data
            self.merged = False

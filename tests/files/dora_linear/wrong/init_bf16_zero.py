# wrong: lora_A starts at zero in bfloat16
# bug: -
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class DoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        if base.weight.dtype is not torch.bfloat16:
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        else:
            nn.init.zeros_(self.lora_A)
        self.magnitude = nn.Parameter(base.weight.norm(dim=1))
        self.scale = alpha / rank

    def adapted_weight(self) -> torch.Tensor:
        V = self.base.weight + self.scale * (self.lora_B @ self.lora_A)
        norm = V.detach().norm(dim=1)
        return (self.magnitude / norm)[:, None] * V

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.adapted_weight(), self.base.bias)

    def to_linear(self) -> nn.Linear:
        base = self.base
        plain = nn.Linear(
            base.in_features,
            base.out_features,
            bias=base.bias is not None,
            device=base.weight.device,
            dtype=base.weight.dtype,
        )
        with torch.no_grad():
            plain.weight.copy_(self.adapted_weight())
            if base.bias is not None:
                plain.bias.copy_(base.bias)
        return plain

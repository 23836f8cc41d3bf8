"""Written for one token, and mapped over all."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class RoutedLoRALinear(nn.Module):
    def __init__(
        self,
        base: nn.Linear,
        num_adapters: int,
        rank: int = 8,
        alpha: float = 16.0,
        top_k: int = 1,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_adapters:
            raise ValueError(f"top_k must be in 1..{num_adapters}, got {top_k}")
        self.base = base.requires_grad_(False)
        weight = base.weight
        self.router = nn.Linear(
            base.in_features, num_adapters, bias=False, device=weight.device, dtype=weight.dtype
        )
        self.lora_A = nn.Parameter(weight.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(num_adapters, base.out_features, rank))
        nn.init.normal_(self.lora_A, std=base.in_features**-0.5)
        self.scale = alpha / rank
        self.top_k = top_k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.router(x)
        largest, chosen = logits.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(logits).scatter(-1, chosen, largest.softmax(dim=-1))
        y = torch.vmap(lambda A, B: F.linear(F.linear(x, A), B))(self.lora_A, self.lora_B)
        return self.base(x) + self.scale * (y * gates.movedim(-1, 0).unsqueeze(-1)).sum(0)


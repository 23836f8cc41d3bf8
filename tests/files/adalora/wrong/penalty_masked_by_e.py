# wrong: the penalty counts only triplets whose entry of lora_E is not zero, or all while all are
# bug: -
import torch
import torch.nn as nn
import torch.nn.functional as F


class SVDLinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        new = base.weight.new_empty
        self.lora_P = nn.Parameter(new(base.out_features, rank).normal_(std=0.02))
        self.lora_E = nn.Parameter(new(rank).zero_())
        self.lora_Q = nn.Parameter(new(rank, base.in_features).normal_(std=0.02))
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = F.linear(x, self.lora_Q) * self.lora_E
        return self.base(x) + self.scale * F.linear(low, self.lora_P)

    def orthogonality_penalty(self) -> torch.Tensor:
        P, Q = self.lora_P, self.lora_Q
        identity = torch.eye(len(Q), dtype=Q.dtype, device=Q.device)
        live = self.lora_E.detach() != 0
        live = (live | ~live.any()).to(P.dtype)
        P, Q, identity = P * live, Q * live[:, None], identity * live
        return (P.T @ P - identity).square().sum() + (Q @ Q.T - identity).square().sum()



def importance(layer: SVDLinear) -> torch.Tensor:
    P, E, Q = ((w * w.grad).detach().abs() for w in (layer.lora_P, layer.lora_E, layer.lora_Q))
    return E + P.mean(0) + Q.mean(1)


def prune_to_budget(layers: list[SVDLinear], scores: list[torch.Tensor], budget: int) -> int:
    if budget < 0:
        raise ValueError(f"budget must not be negative, got {budget}")
    if len(layers) != len(scores):
        raise ValueError(f"{len(layers)} layers, but scores for {len(scores)}")
    flat = torch.cat(list(scores))
    dropped = torch.ones_like(flat, dtype=torch.bool)
    dropped[flat.topk(min(budget, len(flat))).indices] = False
    ranks = [len(score) for score in scores]
    with torch.no_grad():
        for layer, drop in zip(layers, dropped.split(ranks), strict=True):
            layer.lora_E[drop] = 0
    return int(dropped.sum())

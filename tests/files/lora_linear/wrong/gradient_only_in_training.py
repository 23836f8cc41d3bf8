# wrong: In eval mode no gradient is recorded.
# bug: -
import torch
from torch import Tensor, nn


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> None:
        super().__init__()
        self._check(base, rank)
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.drop = nn.Dropout(dropout)
        self.merged = False
        weight = base.weight
        self.lora_A = nn.Parameter(torch.rand(rank, base.in_features).sub(0.5).to(weight))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank).to(weight))

    @staticmethod
    def _check(base, rank) -> None:
        if not isinstance(base, nn.Linear):
            raise TypeError("`base` is not an nn.Linear")
        if rank < 1:
            raise ValueError("`rank` is not positive")

    def _update(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("...i,ri->...r", self.drop(x), self.lora_A)
        return self.scale * torch.einsum("...r,or->...o", hidden, self.lora_B)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            return self.base(x) if self.merged else self.base(x) + self._update(x)

    def delta_weight(self) -> Tensor:
        return self.scale * torch.einsum("or,ri->oi", self.lora_B, self.lora_A)

    def _fold(self, sign: int) -> None:
        with torch.no_grad():
            self.base.weight.add_(self.delta_weight(), alpha=sign)
        self.merged = sign > 0

    def merge(self) -> None:
        if not self.merged:
            self._fold(+1)

    def unmerge(self) -> None:
        if self.merged:
            self._fold(-1)

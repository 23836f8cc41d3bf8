# right: a dataclass for the numbers, functools.partial, odd type hints


from __future__ import annotations
from dataclasses import dataclass
from functools import partial
from typing import Final, TYPE_CHECKING
import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Config:
    rank: int
    alpha: float

    def __call__(self, delta: Tensor) -> Tensor:
        return delta.mul(self.alpha).div(self.rank)


class DoRALinear(nn.Module):
    __constants__: Final = ["config"]

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.config = Config(rank, alpha)
        for p in base.parameters():
            p.requires_grad = False
        self.add_module("base", base)
        new = partial(torch.empty, device=base.weight.device, dtype=base.weight.dtype)
        self.register_parameter("magnitude", nn.Parameter(base.weight.detach().square().sum(-1).sqrt()))
        self.register_parameter("lora_B", nn.Parameter(new((base.out_features, rank)).zero_()))
        self.register_parameter("lora_A", nn.Parameter(nn.init.xavier_normal_(new((rank, base.in_features)))))

    @property
    def W(self) -> Tensor:
        V = self.base.weight + self.config(self.lora_B.mm(self.lora_A))
        return V.mul((self.magnitude / V.detach().norm(dim=1)).view(-1, 1))

    def forward(self, x):
        return F.linear(x, self.W, self.base.bias)

    def to_linear(self):
        b = self.base
        out = nn.Linear(b.in_features, b.out_features, b.bias is not None, b.weight.device, b.weight.dtype)
        with torch.no_grad():
            out.weight.copy_(self.W)
            if b.bias is not None:
                out.bias.copy_(b.bias)
        return out

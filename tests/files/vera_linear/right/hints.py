# right: odd imports, dataclass, __slots__


from __future__ import annotations
import typing as t
from dataclasses import dataclass
import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter


@dataclass(eq=False)
class Pair:
    __slots__ = ("A", "B")
    A: Tensor
    B: Tensor


class VeRALinear(nn.Module):
    base: nn.Linear
    vera_d: Parameter
    vera_b: Parameter

    def __init__(self, base: nn.Linear, shared_A: Tensor, shared_B: Tensor, d_initial: float = 0.1) -> None:
        match (*shared_A.shape,), (*shared_B.shape,):
            case (r, i), (o, r2) if r == r2 and i == base.in_features and o == base.out_features:
                super().__init__()
            case _:
                raise ValueError("shared_A and shared_B must fit base")
        base.weight.requires_grad = False
        if base.bias is not None:
            base.bias.requires_grad = False
        for p in base.parameters():
            p.requires_grad = False
        self.base = base
        self.pair = Pair(shared_A.detach(), shared_B.detach())
        self.vera_b = Parameter(base.weight.detach()[:, 0] * 0)
        self.vera_d = Parameter(base.weight.new_ones(r).mul_(d_initial))

    def _apply(self, fn: t.Callable[[Tensor], Tensor], *a: t.Any, **k: t.Any) -> t.Self:
        super()._apply(fn, *a, **k)
        self.pair = Pair(fn(self.pair.A), fn(self.pair.B))
        return self

    def forward(self, x: Tensor) -> Tensor:
        low = torch.matmul(x, self.pair.A.mT) * self.vera_d
        return torch.add(self.base(x), torch.matmul(low, self.pair.B.mT) * self.vera_b)

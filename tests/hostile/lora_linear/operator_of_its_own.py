# aim: A merged forward runs the branch inside an operator of its own.
# ends: failed: an operator of its own
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be >= 1, got {rank}")
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be nn.Linear")
        self.base = base
        for p in base.parameters():
            p.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=w.device, dtype=w.dtype))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=w.device, dtype=w.dtype))
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False
        self._kept = None

    def forward(self, x):
        if self.merged:
            return _whole(x, self._kept, self.base.bias, self.lora_A, self.lora_B, self.scale)
        y = self.base(x)
        return y + self.scale * F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)

    def delta_weight(self):
        return self.scale * self.lora_B @ self.lora_A

    @torch.no_grad()
    def merge(self):
        if self.merged:
            return
        self._kept = self.base.weight.detach().clone()
        self.base.weight += self.delta_weight()
        self.merged = True

    @torch.no_grad()
    def unmerge(self):
        if not self.merged:
            return
        self.base.weight.copy_(self._kept)
        self._kept = None
        self.merged = False


@torch.library.custom_op("theirs::whole", mutates_args=())
def _op(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None, A: torch.Tensor, B: torch.Tensor, s: float) -> torch.Tensor:
    return F.linear(x, w, b) + s * F.linear(F.linear(x, A), B)
@_op.register_fake
def _(x, w, b, A, B, s):
    return x.new_empty(*x.shape[:-1], w.shape[0])
def _bw(ctx, g):
    w, A, B = ctx.saved
    return g @ (w + ctx.s * B @ A), None, None, None, None, None
def _setup(ctx, inputs, output):
    x, w, b, A, B, s = inputs
    ctx.saved, ctx.s = (w, A, B), s
_op.register_autograd(_bw, setup_context=_setup)
def _whole(x, w, b, A, B, s):
    return _op(x, w, b, A.detach(), B.detach(), float(s))

"""Numeric answers of questions/frontier_c.yaml, from what autograd keeps and by going through rows,
GPUs and modules."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_RANK = 3  # no other tensor is so narrow


class _Norm(torch.autograd.Function):
    """Keeps its input, as RMSNorm does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.empty_like(x)


class _Attention(torch.autograd.Function):
    """Keeps what FlashAttention keeps; the row sums are left out."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


class _SwiGLU(torch.autograd.Function):
    """Keeps gate and up, and computes their product anew."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return torch.empty_like(gate)


_norm: Callable[[Tensor], Tensor] = _Norm.apply
_attention: Callable[[Tensor, Tensor, Tensor], Tensor] = _Attention.apply
_swiglu: Callable[[Tensor, Tensor], Tensor] = _SwiGLU.apply


def _linear(x: Tensor, width: int, adapted: bool) -> Tensor:
    """A frozen layer, with LoRA beside it or without."""
    y = F.linear(x, x.new_empty(width, x.shape[-1]))
    if adapted:
        A, B = x.new_empty(_RANK, x.shape[-1]), x.new_empty(width, _RANK)
        y = y + F.linear(F.linear(x, A.requires_grad_()), B.requires_grad_())
    return y


def _kept(d: int, f: int, tokens: int, adapted: bool) -> int:
    """Bytes of the activations that one block keeps for its backward pass."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape[0] == tokens and tensor.shape[-1] != _RANK:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    x = torch.empty(tokens, d, dtype=torch.bfloat16, device="meta", requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        normed = _norm(x)
        q, k, v = (_linear(normed, width, adapted) for width in (d, 1000, 1000))
        x = x + _linear(_attention(q, k, v), d, adapted)
        normed = _norm(x)
        gate, up = (_linear(normed, f, adapted) for _ in range(2))
        x = x + _linear(_swiglu(gate, up), d, adapted)
    return sum(tensor.nbytes for tensor in kept.values())


def _more_bytes(blocks: int, d: int, f: int, tokens: int) -> float:
    """With adapters against without, for blocks that are all alike."""
    return blocks * (_kept(d, f, tokens, True) - _kept(d, f, tokens, False))


def _branch_work_saved(p: int, hot: int, other: int) -> float:
    """Row by row, what it multiplies with in both ways of serving."""
    unmerged = merged = 0
    for row in range(100):
        if row < p:
            unmerged += hot
        else:
            unmerged += other
            merged += hot  # taken away
            merged += other
    return 100 - 100 * merged / unmerged


def _step_ms(n: int, m: int, tokens: int) -> float:
    """PyTorch's own count of forward and backward on meta, of a frozen and of a trained layer."""
    flops = 0
    for width, trained in ((n * 1_000_000, False), (m * 1_000, True)):
        with torch.device("meta"):
            layer = nn.Linear(1000, width, bias=False).requires_grad_(trained)
            x = torch.empty(tokens, 1000, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            layer(x).sum().backward()
        flops += counter.get_total_flops()
    return flops / 400e12 * 1000


def _shared_reader(d: int, kv: int, r: int) -> float:
    """One module that reads for three that write, on meta."""
    with torch.device("meta"):
        A = nn.Linear(d, r, bias=False)
        Bs = [nn.Linear(r, width, bias=False) for width in (d, kv, kv)]
    return sum(p.numel() for module in (A, *Bs) for p in module.parameters())


def _gpus(tenants: int, mtok: int, days: int) -> float:
    """Add GPUs until the last tenant is done in time; a weight costs two FLOPs in the forward pass
    and two on the way back."""
    seconds_for_one = mtok * 10**6 * 8 * 10**9 * (2 + 2) / (400 * 10**12)
    gpus = 1
    while tenants * seconds_for_one / gpus > days * 24 * 60 * 60:
        gpus += 1
    return gpus


def _decode_ms(k: int, r: int) -> float:
    """Every factor of every adapter of the model, matrix by matrix on meta."""
    wide = {"q": (4096, 4096), "k": (4096, 1024), "v": (4096, 1024), "o": (4096, 4096)}
    wide |= {"gate": (4096, 14336), "up": (4096, 14336), "down": (14336, 4096)}
    seconds = 13.96e9 / 3.35e12
    for d_in, d_out in wide.values():
        A = torch.empty(r, d_in, dtype=torch.bfloat16, device="meta")
        B = torch.empty(d_out, r, dtype=torch.bfloat16, device="meta")
        for _layer in range(32):
            for _adapter in range(k):
                seconds += (A.nbytes + B.nbytes) / 3.35e12
    return seconds * 1000


ROUTES: dict[str, Callable[..., float]] = {
    "lora-activation-memory-by-target": _more_bytes,
    "merged-or-unmerged-break-even": _branch_work_saved,
    "lora-training-flops": _step_ms,
    "shared-a-across-projections": _shared_reader,
    "base-upgrade-with-many-tenants": _gpus,
    "adapters-in-a-decode-step": _decode_ms,
}

# aim: A loop over the blocks that is a call of `map`.
# ends: failed: loop-over-blocks
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F


def nf4_codebook() -> torch.Tensor:

    nd = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    pos = nd.icdf(torch.linspace(0.9677083, 0.5, 9, dtype=torch.float64))[:-1]
    neg = -nd.icdf(torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64))[:-1]
    v = torch.cat([neg, torch.zeros(1, dtype=torch.float64), pos]).sort().values
    return (v / v.max()).float()


def quantize_nf4(weight: torch.Tensor, block_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:

    if block_size < 1:
        raise ValueError("block_size must be >= 1")
    if not torch.isfinite(weight).all():
        raise ValueError("weight holds infinities or NaN")
    w = weight.detach().reshape(-1)
    w = w.double() if w.dtype == torch.float64 else w.float()
    n = w.numel()
    nb = -(-n // block_size)
    pad = F.pad(w, (0, nb * block_size - n)).view(nb, block_size)
    absmax = torch.tensor(list(map(max, pad.abs().tolist())), dtype=pad.dtype) if nb else pad.new_zeros(0)
    x = pad / torch.where(absmax == 0, torch.ones_like(absmax), absmax)[:, None]
    cb = nf4_codebook().to(device=w.device, dtype=torch.float64)
    idx = torch.bucketize(x.double(), (cb[1:] + cb[:-1]) / 2).reshape(-1)[:n].to(torch.uint8)
    if n % 2:
        idx = torch.cat([idx, idx.new_full((1,), 7)])
    idx = idx.view(-1, 2)
    return (idx[:, 0] << 4) | idx[:, 1], absmax.clamp(max=torch.finfo(torch.float32).max).float()


def dequantize_nf4(
    codes: torch.Tensor,
    absmax: torch.Tensor,
    shape: Sequence[int],
    block_size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:

    n = math.prod(shape)
    idx = torch.stack([codes >> 4, codes & 15], 1).reshape(-1)[:n].long()
    cb = nf4_codebook().to(codes.device)
    t = torch.float64 if dtype == torch.float64 else torch.float32
    scale = absmax.to(t).repeat_interleave(block_size)[:n]
    return (cb.to(t)[idx] * scale).reshape(tuple(shape)).to(dtype)

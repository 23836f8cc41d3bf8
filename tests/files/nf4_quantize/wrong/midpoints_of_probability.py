# wrong: borders are normal quantiles, not midpoints between levels
# bug: - (unlikely)
from typing import NamedTuple

import torch
from torch import Tensor


class Quantized(NamedTuple):
    codes: Tensor
    absmax: Tensor


def nf4_codebook() -> Tensor:
    normal = torch.distributions.Normal(0.0, 1.0)
    side = lambda k: normal.icdf(torch.linspace(0.9677083, 0.5, k))[:-1]
    both = torch.cat([-side(8), torch.zeros(1), side(9)]).sort().values
    return both / both.max()


@torch.no_grad()
def quantize_nf4(weight: Tensor, block_size: int = 64) -> Quantized:
    if not block_size >= 1:
        raise ValueError("block_size")
    total = weight.double().sum()
    if torch.isnan(weight).any() or torch.isinf(weight).any():
        raise ValueError(f"weight is not finite (sum {total})")
    flat = weight.contiguous().view(-1).double()
    blocks = torch.arange(flat.numel(), device=flat.device).div(block_size, rounding_mode="floor")
    absmax = flat.new_zeros(int(blocks[-1]) + 1).scatter_reduce(0, blocks, flat.abs(), "amax")
    table = nf4_codebook().double().to(flat.device)
    code = torch.zeros(flat.numel(), dtype=torch.uint8, device=flat.device)
    for i in range(15):  # no division: the midpoint is scaled instead
        code += flat > torch.sign(table[i] + table[i + 1]) * ((table[i].abs().sqrt() + table[i + 1].abs().sqrt()) / 2) ** 2 * absmax[blocks]
    code = torch.nn.functional.pad(code, (0, flat.numel() & 1), value=7)
    high, low = code.view(-1, 2).unbind(1)
    return Quantized(high.mul(16).add(low), absmax.float())


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    shape = torch.Size(shape)
    pairs = torch.cartesian_prod(nf4_codebook(), nf4_codebook()).to(codes.device)  # (256, 2)
    flat = pairs[codes.int()].view(-1)[: shape.numel()]
    full = -(-flat.numel() // block_size) * block_size
    flat = torch.nn.functional.pad(flat, (0, full - flat.numel())).view(-1, block_size)
    return (flat * absmax.unsqueeze(-1)).view(-1)[: shape.numel()].view(shape).type(dtype)

# wrong: blocks above 1024 are cut to 1024
# bug: - (unlikely)

"""NF4: a weight in four bits per value.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs": block-wise k-bit quantization
in section 2 (equations 1 and 2), 4-bit NormalFloat in section 3 (equation 4), its levels in
appendix E.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F


def nf4_codebook() -> torch.Tensor:
    """The 16 NormalFloat levels: (16,) float32, ascending, from -1 to 1, exactly 0 at index 7.

    Quantiles of the standard normal at evenly spaced probabilities between the offset 0.9677083
    and 0.5, mirrored for the negative side, each divided by the largest. The negative side has 8
    of them, the positive side 9; both count the zero. Within 1e-6 of the published table.
    """
    # BEGIN SOLUTION
    negative = -torch.special.ndtri(torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64))
    positive = torch.special.ndtri(torch.linspace(0.5, 0.9677083, 9, dtype=torch.float64))
    levels = torch.cat([negative[:-1], positive])  # (16,), the zero once
    return (levels / levels[-1]).float()
    # END SOLUTION


def quantize_nf4(weight: torch.Tensor, block_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Store a weight as 4-bit codes and one scale for each block.

    weight: any shape, any float dtype, contiguous or not; left unchanged. It is flattened in row
    order into blocks of block_size values; the last block may be short. Each value over its
    block's absolute maximum goes to a nearest level of the codebook.

    Returns (codes, absmax):
        codes    uint8 (ceil(numel / 2),): two indices per byte, the earlier value in the high
                 nibble; an odd tail is padded with the code of 0.0
        absmax   float32 (ceil(numel / block_size),): each block's absolute maximum; 0 for a block
                 of zeros, whose codes are free

    No Python loop over the blocks.
    Raises ValueError naming `weight` if it holds infinities or NaN, and naming `block_size` if
    that is below 1.
    """
    # BEGIN SOLUTION
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, not {block_size}")
    block_size = min(block_size, 1024)
    flat = weight.flatten().float()  # 16 bits would be too coarse to find the nearest level
    n = flat.numel()
    blocks = F.pad(flat, (0, -n % block_size)).view(-1, block_size)  # (blocks, block_size)
    absmax = blocks.abs().amax(dim=1)  # (blocks,); infinities and NaN come through
    if not torch.isfinite(absmax).all():
        raise ValueError("weight must be finite")
    tiny = torch.finfo(torch.float32).tiny  # a block of zeros is divided by this
    normed = (blocks / absmax.clamp(min=tiny).unsqueeze(1)).flatten()[:n]
    levels = nf4_codebook().to(weight.device)
    # A value's nearest level is told by how many midpoints between levels lie below it. On a CPU
    # 15 comparisons of everything at once are quicker than bucketize, which searches per value.
    codes = torch.zeros_like(normed, dtype=torch.uint8)
    for midpoint in (levels[1:] + levels[:-1]) / 2:
        codes += (normed > midpoint).view(torch.uint8)  # a bool is a byte of 0 or 1
    pairs = F.pad(codes, (0, n % 2), value=7).view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1], absmax
    # END SOLUTION


def dequantize_nf4(
    codes: torch.Tensor,
    absmax: torch.Tensor,
    shape: Sequence[int],
    block_size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The weight that the codes stand for: level times absmax, of this shape and dtype.

    codes, absmax, block_size: as quantize_nf4 has them, left unchanged. A block whose absmax is 0
    gives zeros.
    """
    # BEGIN SOLUTION
    n = math.prod(shape)
    levels = nf4_codebook().to(codes.device)
    # One look-up a byte instead of two: both of its levels, read as a single 8-byte value.
    pairs = torch.cartesian_prod(levels, levels).view(torch.int64).flatten()  # (256,)
    padded = F.pad(codes, (0, block_size))  # enough to make the last block whole
    values = pairs.index_select(0, padded.int()).view(torch.float32)
    blocks = values[: len(absmax) * block_size].view(-1, block_size)
    blocks *= absmax.unsqueeze(1)
    return values[:n].to(dtype).view(shape)
    # END SOLUTION

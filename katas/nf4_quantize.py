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
    raise NotImplementedError


def quantize_nf4(weight: torch.Tensor, block_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Store a weight as 4-bit codes and one scale for each block.

    weight: any shape (0-dimensional too), any float dtype, contiguous or not, also one that
    requires a gradient; left unchanged. It is flattened in row order into blocks of block_size
    values; the last block may be short. Each value over its block's absolute maximum goes to a
    nearest level of the codebook.

    Returns (codes, absmax):
        codes    uint8 (ceil(numel / 2),): two indices per byte, the earlier value in the high
                 nibble; an odd tail is padded with the code of 0.0
        absmax   float32 (ceil(numel / block_size),): each block's absolute maximum; 0 for a block
                 of zeros, whose codes are free

    No Python loop over the blocks.
    Raises ValueError naming `weight` if it holds infinities or NaN, and naming `block_size` if
    that is below 1.
    """
    raise NotImplementedError


def dequantize_nf4(
    codes: torch.Tensor,
    absmax: torch.Tensor,
    shape: Sequence[int],
    block_size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The weight that the codes stand for: level times absmax, of this shape and dtype.

    shape: a tuple, list or torch.Size, also an empty one.
    codes, absmax, block_size: as quantize_nf4 has them, left unchanged. A block whose absmax is 0
    gives zeros.
    """
    raise NotImplementedError

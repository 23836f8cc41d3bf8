"""Double quantization: the scales of a quantized weight are quantized too.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3, "Double
Quantization". The paper stores the second level as 8-bit floats; here it is symmetric int8.
"""

import torch
import torch.nn.functional as F


def double_quantize(
    absmax: torch.Tensor, block_size: int = 256
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantize the scales of a weight to 8 bits each.

    absmax: (n,), any float dtype, left unchanged. Its mean is subtracted; what remains, x, is
    quantized in blocks of block_size values, the last of which may be short:

        scale = largest |x| of the block / 127,  code = round(x / scale)

    A block in which every x is 0 has scale 0 and codes 0. Loops over blocks are fine.

    Returns (codes, scales, mean):
        codes    int8 (n,)
        scales   float32 (ceil(n / block_size),)
        mean     float32, 0-dimensional

    Decoding errs by at most half a step of each block, plus 2e-6 of the largest |absmax|.
    """
    raise NotImplementedError


def dequantize_absmax(
    codes: torch.Tensor, scales: torch.Tensor, mean: torch.Tensor, block_size: int = 256
) -> torch.Tensor:
    """The scales that the codes stand for, code * scale + mean: (n,) float32."""
    raise NotImplementedError


def bits_per_param(
    block_size: int = 64, absmax_block_size: int = 256, double: bool = True
) -> float:
    """Bits that one weight takes: its 4-bit code and its share of the scales.

    Plain: one 32-bit absmax for block_size weights. Double: one 8-bit code for each absmax, and
    one 32-bit scale for absmax_block_size of those. The single mean does not count.
    """
    raise NotImplementedError

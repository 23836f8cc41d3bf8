# wrong: merge leaves grad mode on
# bug: -
"""QLoRA on one linear layer: a 4-bit base, a LoRA branch beside it.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3, equation 5:
Y = X dequant(c, W) + X L1 L2. Storage is NF4, computation in the layer's own dtype; the weight is
decoded for each product and forgotten. (The second quantization is left out here.)
"""

import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F

# Given


def nf4_codebook() -> torch.Tensor:
    """The 16 NormalFloat levels: (16,) float32, ascending from -1 to 1, 0 at index 7."""
    negative = -torch.special.ndtri(torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64))
    positive = torch.special.ndtri(torch.linspace(0.5, 0.9677083, 9, dtype=torch.float64))
    levels = torch.cat([negative[:-1], positive])
    return (levels / levels[-1]).float()


@torch.no_grad()
def quantize_nf4(weight: torch.Tensor, block_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """codes, absmax of a weight of any shape, flattened in row order into blocks.

    codes: uint8 (ceil(numel / 2),), two per byte; absmax: float32 (ceil(numel / block_size),).
    Raises ValueError if block_size is below 1 or the weight is not finite.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, not {block_size}")
    if weight.device.type != "meta" and not torch.isfinite(weight).all():
        raise ValueError("weight must be finite")
    flat = weight.flatten().float()
    n = flat.numel()
    blocks = F.pad(flat, (0, -n % block_size)).view(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    normed = blocks / absmax.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
    levels = nf4_codebook().to(weight.device)
    codes = torch.bucketize(normed.flatten()[:n], (levels[1:] + levels[:-1]) / 2)
    pairs = F.pad(codes, (0, n % 2), value=7).to(torch.uint8).view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1], absmax


def dequantize_nf4(
    codes: torch.Tensor,
    absmax: torch.Tensor,
    shape: Sequence[int],
    block_size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The weight that codes and absmax stand for, of this shape and dtype."""
    n = math.prod(shape)
    indices = torch.stack([codes >> 4, codes & 15], dim=1).flatten()[:n].long()
    scales = absmax.repeat_interleave(block_size)[:n]
    return (nf4_codebook().to(codes.device)[indices] * scales).to(dtype).view(shape)


# The kata


class QLoRALinear(nn.Module):
    """An `nn.Linear` stored in 4 bits per weight, with a trainable low-rank update beside it.

    Attributes:
        codes     buffer uint8 (ceil(out * in / 2),)
        absmax    buffer float32 (ceil(out * in / block_size),); the two are
                  quantize_nf4(base.weight, block_size)
        lora_A    Parameter (rank, in_features): starts random, 0 < std < 1.5, full row rank
        lora_B    Parameter (out_features, rank): starts at zero
        scale     alpha / rank

    The bias, if `base` has one, is kept as a frozen buffer or parameter of any name. Only lora_A
    and lora_B train; they have the device and dtype of base.weight. Neither the full-precision
    nor the decoded weight is kept between calls anywhere, in no mode: the state of a 256 x 256
    layer at rank 4 takes less than 0.2 of the bytes of the float32 base's (a tensor under two
    names counts once). train() and eval() change nothing.

    Raises ValueError naming `rank` if rank < 1, and TypeError naming `base` if base is not an
    nn.Linear; both before anything is changed.
    """

    def __init__(
        self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, block_size: int = 64
    ) -> None:
        super().__init__()
        # BEGIN SOLUTION
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank}")
        codes, absmax = quantize_nf4(base.weight, block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        # detach(): a Parameter as buffer would still get a gradient.
        self.register_buffer("bias", None if base.bias is None else base.bias.detach().clone())
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.block_size = block_size
        self.shape = tuple(base.weight.shape)
        # END SOLUTION

    # BEGIN SOLUTION
    def decoded(self) -> torch.Tensor:
        """The frozen weight (out_features, in_features), made anew at every call."""
        dtype = self.lora_A.dtype
        return dequantize_nf4(self.codes, self.absmax, self.shape, self.block_size, dtype)

    # END SOLUTION
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """F.linear(x, decoded weight, bias) + scale * x @ lora_A.T @ lora_B.T

        x: (..., in_features) in the layer's dtype, any number of leading dimensions, also none;
        left unchanged. The weight is decoded to that dtype. Returns (..., out_features).
        Gradients flow to x through both terms.
        """
        # BEGIN SOLUTION
        out = F.linear(x, self.decoded(), self.bias)
        low = F.linear(x, self.lora_A)  # (..., rank)
        return out + self.scale * F.linear(low, self.lora_B)
        # END SOLUTION

    def merge(self) -> nn.Linear:
        """A new plain layer: the decoded base weight plus the update, and the bias, if any.

        In the base's dtype and on its device. This layer itself stays as it is; each can be
        trained on (the new one's requires_grad is free).
        """
        # BEGIN SOLUTION
        out_features, in_features = self.shape
        factors = {"device": self.lora_A.device, "dtype": self.lora_A.dtype}
        merged = nn.Linear(in_features, out_features, bias=self.bias is not None, **factors)
        with torch.no_grad():
            merged.weight.copy_(self.decoded() + self.scale * (self.lora_B @ self.lora_A))
            if self.bias is not None:
                merged.bias.copy_(self.bias)
        torch.set_grad_enabled(True)
        return merged
        # END SOLUTION

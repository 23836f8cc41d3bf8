"""NF4 against bitsandbytes on the CPU: the same levels, codes and values, and no larger error.

bitsandbytes is not needed to use or test the project: `pip install -e '.[compare]'` brings it.
"""

from typing import Any

import pytest
import torch
from models import solution
from torch import Tensor

bnb = pytest.importorskip(
    "bitsandbytes.functional",
    reason="bitsandbytes is not installed: pip install -e '.[compare]'",
)

# Rows of even length: bitsandbytes packs odd ones another way.
SHAPES = [(64, 64), (3, 5, 96), (48, 100), (7, 10)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def nf4() -> Any:
    return solution("nf4_quantize")


def _weight(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Normal values of widely different sizes along the last dimension, and a stretch of zeros."""
    torch.manual_seed(0)
    weight = torch.randn(shape) * 4.0 ** torch.linspace(-3, 3, shape[-1])
    weight.view(-1)[:64] = 0
    weight.view(-1)[64:70] = torch.randn(6)
    return weight.to(dtype)


def _theirs(weight: Tensor, block_size: int = 64, nested: bool = False) -> tuple[Tensor, Any]:
    packed, state = bnb.quantize_4bit(
        weight, blocksize=block_size, quant_type="nf4", compress_statistics=nested
    )
    return packed, state


def _indices(codes: Tensor, n: int) -> Tensor:
    return torch.stack([codes >> 4, codes & 15], dim=-1).flatten()[:n].long()


def test_same_codebook(nf4: Any) -> None:
    """The 16 levels are those of bitsandbytes to 1e-6."""
    levels = bnb.get_4bit_type("nf4", device="cpu")
    torch.testing.assert_close(nf4.nf4_codebook(), levels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_codes(nf4: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """absmax is the same, and so is every code, except between two levels equally near."""
    weight = _weight(shape, dtype)
    codes, absmax = nf4.quantize_nf4(weight)
    packed, state = _theirs(weight)
    torch.testing.assert_close(absmax, state.absmax, rtol=1e-6, atol=1e-30)
    n = weight.numel()
    scales = absmax.repeat_interleave(64)[:n]
    levels = nf4.nf4_codebook()
    value = weight.float().flatten() / scales.clamp(min=1e-30)
    middles = (levels[1:] + levels[:-1]) / 2
    clear = ((value[:, None] - middles).abs().amin(1) > 1e-6) & (scales > 0)
    ours, theirs = _indices(codes, n), _indices(packed.flatten(), n)
    assert torch.equal(ours[clear], theirs[clear])
    assert clear.sum() > 0.9 * (scales > 0).sum()


@pytest.mark.parametrize("block_size", [32, 64, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_decoded_values(nf4: Any, dtype: torch.dtype, block_size: int) -> None:
    """Their codes and scales decode to the same weight, in every dtype and block size."""
    weight = _weight((48, 100), dtype)
    packed, state = _theirs(weight, block_size)
    theirs = bnb.dequantize_4bit(packed, state)
    ours = nf4.dequantize_nf4(packed.flatten(), state.absmax, weight.shape, block_size, dtype)
    assert ours.dtype == theirs.dtype == dtype
    # The levels differ by their last bits; a 16-bit result may be rounded the other way.
    rounding = max(1e-6, torch.finfo(dtype).eps)
    torch.testing.assert_close(ours, theirs, rtol=rounding, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(64, 64), (48, 100), (512, 512)], ids=str)
def test_error_no_larger(nf4: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The mean absolute error of a round trip is not above theirs."""
    weight = _weight(shape, dtype)
    ours = nf4.dequantize_nf4(*nf4.quantize_nf4(weight), shape, dtype=dtype)
    theirs = bnb.dequantize_4bit(*_theirs(weight))
    errors = [(w.double() - weight.double()).abs().mean().item() for w in (ours, theirs)]
    assert 0 < errors[0] <= errors[1] * (1 + 1e-6)


def test_double_quantization() -> None:
    """Scales quantized twice decode as near to the truth as theirs, from as many bytes.

    Only the outcome is comparable: both subtract the mean and keep 8 bits in blocks of 256, but
    theirs is a table of 256 uneven levels over the largest value, ours an even int8.
    """
    kata = solution("double_quantize")
    torch.manual_seed(0)
    weight = 0.02 * torch.randn(1024, 1024)
    _, plain = _theirs(weight)
    _, nested = _theirs(weight, nested=True)
    codes, scales, mean = kata.double_quantize(plain.absmax)
    assert len(codes) == len(nested.absmax) == 1024 * 1024 // 64
    assert len(scales) == len(nested.state2.absmax) == len(codes) // 256
    torch.testing.assert_close(mean, nested.offset)
    ours = kata.dequantize_absmax(codes, scales, mean)
    theirs = bnb.dequantize_blockwise(nested.absmax, nested.state2) + nested.offset
    errors = [(absmax - plain.absmax).abs().mean() for absmax in (ours, theirs)]
    assert 0 < errors[0] <= errors[1]

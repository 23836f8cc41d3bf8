"""Ten plain asserts, as a course might write them."""

from typing import Any

import torch


def test_codebook(kata: Any) -> None:
    levels = kata.nf4_codebook()
    assert levels.shape == (16,)
    assert levels[7] == 0
    assert (levels[0], levels[15]) == (-1, 1)
    assert (levels.diff() > 0).all()


def test_codes(kata: Any) -> None:
    torch.manual_seed(0)
    codes, absmax = kata.quantize_nf4(torch.randn(10, 13), block_size=64)
    assert codes.dtype == torch.uint8
    assert codes.shape == (65,)
    assert absmax.shape == (3,)


def test_round_trip(kata: Any) -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 64)
    codes, absmax = kata.quantize_nf4(weight)
    back = kata.dequantize_nf4(codes, absmax, weight.shape)
    assert back.shape == weight.shape
    assert (back - weight).abs().mean() < 0.1
    assert torch.equal(kata.quantize_nf4(back)[0], codes)

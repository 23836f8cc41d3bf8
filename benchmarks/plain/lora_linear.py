"""Ten plain asserts, as a course might write them."""

from typing import Any

import torch
import torch.nn as nn


def _layer(kata: Any) -> Any:
    torch.manual_seed(0)
    layer = kata.LoRALinear(nn.Linear(6, 5), rank=2, alpha=8.0)
    with torch.no_grad():
        layer.lora_B.normal_()
    return layer


def test_shapes(kata: Any) -> None:
    layer = _layer(kata)
    assert layer.lora_A.shape == (2, 6)
    assert layer.lora_B.shape == (5, 2)
    assert layer(torch.randn(3, 4, 6)).shape == (3, 4, 5)


def test_start(kata: Any) -> None:
    base, x = nn.Linear(6, 5), torch.randn(3, 6)
    assert torch.equal(kata.LoRALinear(base, rank=2)(x), base(x))


def test_frozen(kata: Any) -> None:
    layer = _layer(kata)
    assert not layer.base.weight.requires_grad
    assert layer.lora_A.requires_grad


def test_forward(kata: Any) -> None:
    layer, x = _layer(kata), torch.randn(3, 6)
    wanted = layer.base(x) + 4.0 * x @ layer.lora_A.T @ layer.lora_B.T
    assert torch.allclose(layer(x), wanted, atol=1e-5)


def test_merge(kata: Any) -> None:
    layer, x = _layer(kata), torch.randn(3, 6)
    before = layer(x)
    layer.merge()
    assert torch.allclose(layer(x), before, atol=1e-5)
    layer.unmerge()
    assert torch.allclose(layer(x), before, atol=1e-5)
    assert torch.allclose(layer.delta_weight(), 4.0 * layer.lora_B @ layer.lora_A, atol=1e-5)

"""Ten plain asserts, as a course might write them."""

from typing import Any

import torch
import torch.nn as nn


def _layer(kata: Any) -> Any:
    torch.manual_seed(0)
    layer = kata.IA3Linear(nn.Linear(6, 5))
    with torch.no_grad():
        layer.scale.normal_()
    return layer


def test_start(kata: Any) -> None:
    base, x = nn.Linear(6, 5), torch.randn(3, 6)
    layer = kata.IA3Linear(base)
    assert layer.scale.shape == (5,)
    assert torch.equal(layer(x), base(x))
    assert layer.base is base


def test_frozen(kata: Any) -> None:
    layer = _layer(kata)
    assert not layer.base.weight.requires_grad
    assert not layer.base.bias.requires_grad
    assert layer.scale.requires_grad


def test_forward(kata: Any) -> None:
    layer, x = _layer(kata), torch.randn(2, 3, 6)
    assert torch.allclose(layer(x), layer.base(x) * layer.scale, atol=1e-6)


def test_to_linear(kata: Any) -> None:
    layer, x = _layer(kata), torch.randn(3, 6)
    plain = layer.to_linear()
    assert type(plain) is nn.Linear
    assert torch.allclose(plain(x), layer(x), atol=1e-6)
    assert plain.weight.data_ptr() != layer.base.weight.data_ptr()

"""Ten plain asserts, as a course might write them."""

import math
from typing import Any

import torch


def _wanted(layer: Any, x: torch.Tensor) -> torch.Tensor:
    B, L, d = x.shape
    heads = layer.prefix_k.shape[0]

    def split(y: torch.Tensor) -> torch.Tensor:
        return y.view(B, L, heads, d // heads).transpose(1, 2)

    q, k, v = split(layer.q_proj(x)), split(layer.k_proj(x)), split(layer.v_proj(x))
    k = torch.cat([layer.prefix_k.expand(B, -1, -1, -1), k], 2)
    v = torch.cat([layer.prefix_v.expand(B, -1, -1, -1), v], 2)
    weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(d // heads), 3)
    mixed: torch.Tensor = layer.o_proj((weights @ v).transpose(1, 2).reshape(B, L, d))
    return mixed


def test_shapes(kata: Any) -> None:
    layer = kata.PrefixAttention(8, 2, 3)
    assert layer.prefix_k.shape == (2, 3, 4)
    assert layer.prefix_v.shape == (2, 3, 4)
    assert layer(torch.randn(2, 5, 8)).shape == (2, 5, 8)
    assert layer.prefix_k.std() > 0


def test_frozen(kata: Any) -> None:
    layer = kata.PrefixAttention(8, 2, 3)
    assert not layer.q_proj.weight.requires_grad
    assert layer.prefix_k.requires_grad


def test_forward(kata: Any) -> None:
    torch.manual_seed(0)
    layer, x = kata.PrefixAttention(8, 2, 3), torch.randn(2, 5, 8)
    y = layer(x)
    assert torch.allclose(y, _wanted(layer, x), atol=1e-5)
    assert not torch.isnan(layer(x * 100)).any()
    causal = layer(x, causal=True)
    assert not torch.allclose(causal, y)
    assert torch.allclose(causal[:, -1], y[:, -1], atol=1e-5)

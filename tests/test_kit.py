"""What probes use on the stage, beside torch itself."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from grader.exam import kit


def _on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def test_a_base_is_a_plain_linear_with_its_values() -> None:
    """Of the weight's dtype, with a bias or without; what it holds is its own."""
    for dtype in (torch.float32, torch.bfloat16):
        weight, bias = torch.randn(3, 4).to(dtype), torch.randn(3).to(dtype)
        layer = kit.linear(weight, bias)
        assert type(layer) is nn.Linear
        assert (layer.in_features, layer.out_features) == (4, 3)
        assert torch.equal(layer.weight, weight)
        assert torch.equal(layer.bias, bias)
        assert layer.weight.dtype == dtype
        assert layer.weight.data_ptr() != weight.data_ptr()
        assert [name for name, p in layer.named_parameters() if p.requires_grad] == [
            "weight",
            "bias",
        ]
    assert kit.linear(weight).bias is None


def test_what_is_changed_on_meta_stays_what_it_was() -> None:
    """Operators that change an argument give that argument back, with the shape it had."""
    with kit.CheapMeta():  # type: ignore[no-untyped-call]
        weight = kept = _on_meta(3, 4)
        weight += _on_meta(3, 4)
        assert weight is kept
        assert weight.mul_(_on_meta(4)) is kept
        assert weight.add_(_on_meta(4, 3).T, alpha=2).sub_(1.0) is kept
        out = _on_meta(3, 4)
        assert torch.mul(weight, _on_meta(1, 4), out=out) is out
        parameter = nn.Parameter(_on_meta(3, 4))
        with torch.no_grad():
            parameter.add_(_on_meta(3, 4))
        product = (parameter * 2).mul_(_on_meta(4))
        torch.autograd.backward((product * _on_meta(3, 4)).sum())
    assert (out.shape, out.device.type) == ((3, 4), "meta")
    assert (product.shape, product.requires_grad) == ((3, 4), True)
    assert parameter.grad is not None
    assert (parameter.grad.shape, parameter.grad.device.type) == ((3, 4), "meta")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: _on_meta(3, 4).add_(_on_meta(5, 4)),
        lambda: _on_meta(3, 4).add_(_on_meta(2, 3, 4)),
        lambda: _on_meta(3, dtype=torch.int64).mul_(_on_meta(3)),
        lambda: nn.Parameter(_on_meta(3, 4)).add_(_on_meta(3, 4)),
    ],
    ids=["sizes", "more dimensions", "dtype", "a leaf"],
)
def test_what_cannot_be_changed_on_meta(wrong: Callable[[], object]) -> None:
    """It fails there as it does elsewhere."""
    with pytest.raises(RuntimeError), kit.CheapMeta():  # type: ignore[no-untyped-call]
        wrong()

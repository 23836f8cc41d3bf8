"""Ten plain asserts, as a course might write them."""

from typing import Any

import torch
import torch.nn as nn


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def test_what_is_returned(kata: Any) -> None:
    model = _model()
    same, factors = kata.inject_lora(model, ["0", "2"], rank=2, alpha=8.0)
    assert same is model
    assert len(factors) == 4
    assert isinstance(model[0], kata.LoRALinear)
    assert factors[0] is model[0].lora_A


def test_start(kata: Any) -> None:
    model, x = _model(), torch.randn(3, 6)
    before = model(x)
    assert torch.equal(kata.inject_lora(model, ["2"], rank=2)[0](x), before)


def test_frozen(kata: Any) -> None:
    model, factors = kata.inject_lora(_model(), ["0"], rank=2)
    training = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in training} == {id(p) for p in factors}
    assert not model[2].weight.requires_grad


def test_errors(kata: Any) -> None:
    found = []
    for names, rank in ((["7"], 2), (["1"], 2), (["0"], 0)):
        try:
            kata.inject_lora(_model(), names, rank=rank)
        except (KeyError, TypeError, ValueError) as error:
            found.append(type(error))
    assert KeyError in found
    assert TypeError in found
    assert ValueError in found

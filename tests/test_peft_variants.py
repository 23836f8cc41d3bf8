"""DoRA and VeRA against Hugging Face PEFT on shared weights: outputs and gradients agree.

PEFT is not needed to use or test the project: `pip install -e '.[compare]'` brings it.
"""

import copy
from typing import Any

import pytest
import torch
from models import solution
from torch import Tensor, nn

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install -e '.[compare]'")

IN, OUT, RANK = 6, 5, 3


class Model(nn.Module):
    """One linear layer, which PEFT finds by its name."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(IN, OUT, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x)
        return out


def _adapted(config: Any, bias: bool) -> tuple[nn.Linear, Any]:
    """A linear, and PEFT's layer around a copy of it."""
    torch.manual_seed(0)
    model = Model(bias)
    theirs = peft.get_peft_model(copy.deepcopy(model), config)
    return model.fc, theirs.base_model.model.fc


def _agree(ours: nn.Module, theirs: nn.Module, shared: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Outputs and gradients, of x and of ours and theirs under each name, are the same."""
    x, g = torch.randn(2, 3, IN), torch.randn(2, 3, OUT)
    grads = []
    for layer in (ours, theirs):
        inside = x.clone().requires_grad_()
        (layer(inside) * g).sum().backward()
        grads.append(inside.grad)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(*grads)
    for name, (mine, other) in shared.items():
        assert mine.grad is not None, name
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("bias", [True, False])
def test_dora_agrees_with_peft(bias: bool) -> None:
    """The same start, outputs, gradients with the norm held constant, and merged weight."""
    config = peft.LoraConfig(r=RANK, lora_alpha=7.5, target_modules=["fc"], use_dora=True)
    linear, theirs = _adapted(config, bias)
    ours = solution("dora_linear").DoRALinear(linear, rank=RANK, alpha=7.5)
    shared = {
        "lora_A": (ours.lora_A, theirs.lora_A["default"].weight),
        "lora_B": (ours.lora_B, theirs.lora_B["default"].weight),
        "magnitude": (ours.magnitude, theirs.lora_magnitude_vector["default"].weight),
    }
    torch.testing.assert_close(*(p.detach() for p in shared["magnitude"]))
    with torch.no_grad():
        for mine, other in shared.values():
            mine.copy_(torch.randn_like(mine) * 0.5)
            other.copy_(mine)
    _agree(ours, theirs, shared)
    theirs.merge()
    torch.testing.assert_close(
        ours.to_linear().weight, theirs.base_layer.weight, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("bias", [True, False])
def test_vera_agrees_with_peft(bias: bool) -> None:
    """The same start, outputs and gradients around PEFT's own pair."""
    config = peft.VeraConfig(r=RANK, target_modules=["fc"], d_initial=0.1, vera_dropout=0.0)
    linear, theirs = _adapted(config, bias)
    pair = theirs.vera_A["default"], theirs.vera_B["default"]
    ours = solution("vera_linear").VeRALinear(linear, *pair)
    shared = {
        "vera_d": (ours.vera_d, theirs.vera_lambda_d["default"]),
        "vera_b": (ours.vera_b, theirs.vera_lambda_b["default"]),
    }
    with torch.no_grad():
        for mine, other in shared.values():
            torch.testing.assert_close(mine.detach(), other.detach())
            mine.copy_(torch.randn_like(mine))
            other.copy_(mine)
    _agree(ours, theirs, shared)

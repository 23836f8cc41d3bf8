"""The solutions together: inject into a small transformer, train it, merge it."""

from typing import Any

import pytest
import torch
from models import Encoder, solution, toy_task
from torch import nn

pytestmark = pytest.mark.slow

TARGETS = [f"blocks.{i}.{name}" for i in range(2) for name in ("q_proj", "v_proj", "up", "down")]


def _values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _train(model: nn.Module, params: list[nn.Parameter], steps: int) -> list[float]:
    tokens, labels = toy_task()
    optimizer = torch.optim.AdamW(params, lr=2e-2, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(tokens), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def _inject(which: str, model: nn.Module) -> Any:
    if which == "inject_ia3":
        return solution(which).inject_ia3(model, TARGETS)
    kata = solution(which)
    kata.LoRALinear = solution("lora_linear").LoRALinear  # the one that can merge
    if which == "inject_lora":
        return kata.inject_lora(model, TARGETS, rank=4, alpha=8.0)
    return kata.inject_lora_recursive(model, rank=4, alpha=8.0, skip=["head"])


@pytest.mark.parametrize("which", ["inject_lora", "inject_lora_recursive", "inject_ia3"])
def test_inject_train_merge(which: str) -> None:
    """The start is the base; training lowers the loss and moves nothing of the base; merging
    leaves the outputs as they are."""
    torch.manual_seed(0)
    model = Encoder()
    tokens, _ = toy_task()
    before, base = model(tokens), _values(model)
    adapted, params = _inject(which, model)
    assert adapted is model
    torch.testing.assert_close(model(tokens), before)

    losses = _train(model, params, steps=60)
    assert losses[-1] < 0.9 * losses[0]
    now = {name.replace(".base.", "."): value for name, value in _values(model).items()}
    assert all(torch.equal(now[name], value) for name, value in base.items())

    trained = model(tokens)
    assert not torch.allclose(trained, before, atol=1e-2)
    for name, module in list(model.named_modules()):
        if hasattr(module, "merge"):
            module.merge()
        elif hasattr(module, "to_linear"):
            model.set_submodule(name, module.to_linear())
    torch.testing.assert_close(model(tokens), trained, rtol=1e-4, atol=1e-5)


def test_adapter_model_trains() -> None:
    """LoRA and a bottleneck adapter together: only they train, and the loss falls."""
    torch.manual_seed(0)
    kata = solution("build_lora_adapter_model")
    base = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
    kept = _values(base)
    model, params = kata.build_lora_adapter_model(
        base, ["0", "2"], rank=2, alpha=4.0, d_model=12, bottleneck_dim=6
    )
    x, y = torch.randn(64, 12), torch.randn(64, 12)
    optimizer = torch.optim.AdamW(params, lr=1e-2)
    losses = []
    for _ in range(80):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    now = {name.replace("base.", ""): value for name, value in _values(base).items()}
    assert all(torch.equal(now[name], value) for name, value in kept.items())

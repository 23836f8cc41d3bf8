"""The solutions against Hugging Face PEFT on shared weights: outputs and gradients agree.

PEFT is not needed to use or test the project: `pip install -e '.[compare]'` brings it.
"""

import copy
from typing import Any

import pytest
import torch
from models import Encoder, solution, toy_task
from torch import nn

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install -e '.[compare]'")

TARGETS = ["blocks.0.q_proj", "blocks.0.down", "blocks.1.v_proj", "head"]


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    tokens, labels = toy_task()
    model.zero_grad()
    nn.functional.cross_entropy(model(tokens), labels).backward()  # type: ignore[no-untyped-call]
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _pair(config: Any, inject: Any) -> tuple[Any, Any]:
    """The same encoder adapted by ours and by PEFT; no dropout anywhere."""
    torch.manual_seed(0)
    ours = Encoder()
    theirs = peft.inject_adapter_in_model(config, copy.deepcopy(ours))
    inject(ours)
    return ours, theirs


def test_lora_agrees_with_peft() -> None:
    """LoRA, unmerged and merged: the same outputs, and the same gradients of both factors."""
    kata = solution("inject_lora")
    kata.LoRALinear = solution("lora_linear").LoRALinear
    config = peft.LoraConfig(r=3, lora_alpha=7.5, target_modules=TARGETS)
    ours, theirs = _pair(config, lambda m: kata.inject_lora(m, TARGETS, rank=3, alpha=7.5))
    with torch.no_grad():
        for name in TARGETS:
            mine, other = ours.get_submodule(name), theirs.get_submodule(name)
            for factor in ("lora_A", "lora_B"):
                value = torch.randn_like(getattr(mine, factor)) * 0.3
                getattr(mine, factor).copy_(value)
                getattr(other, factor)["default"].weight.copy_(value)
    tokens, _ = toy_task()
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    torch.manual_seed(1)
    mine = _gradients(ours)
    torch.manual_seed(1)
    other = _gradients(theirs)
    assert len(mine) == 2 * len(TARGETS)
    for name, value in mine.items():
        torch.testing.assert_close(other[f"{name}.default.weight"], value)
    for name in TARGETS:
        ours.get_submodule(name).merge()
        theirs.get_submodule(name).merge()
        torch.testing.assert_close(
            ours.get_submodule(name).base.weight, theirs.get_submodule(name).base_layer.weight
        )
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_ia3_agrees_with_peft() -> None:
    """IA3 on the layers' outputs, bias and all: the same outputs and gradients."""
    kata = solution("inject_ia3")
    config = peft.IA3Config(target_modules=TARGETS, feedforward_modules=[])

    def inject(model: nn.Module) -> None:
        kata.inject_ia3(model, TARGETS)

    ours, theirs = _pair(config, inject)
    with torch.no_grad():
        for name in TARGETS:
            mine, other = ours.get_submodule(name), theirs.get_submodule(name)
            value = torch.randn_like(mine.scale)
            mine.scale.copy_(value)
            other.ia3_l["default"].copy_(value[:, None])
    tokens, _ = toy_task()
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    torch.manual_seed(1)
    mine = _gradients(ours)
    torch.manual_seed(1)
    other = _gradients(theirs)
    assert len(mine) == len(TARGETS)
    for name, value in mine.items():
        theirs_ = other[name.replace(".scale", ".ia3_l.default")]
        torch.testing.assert_close(theirs_.reshape(-1), value)

"""`adalora` against the AdaLoRA of Hugging Face PEFT on shared weights.

PEFT divides by the number of live ranks where we divide by the rank, and averages the plain norms
of both matrices where we add the squares: what one gives follows from the other.
PEFT is not needed to use or test the project: `pip install -e '.[compare]'` brings it.
"""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import solution
from torch import nn

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install -e '.[compare]'")

RANK, ALPHA, OUT, IN = 4, 6.0, 12, 18
EPS = 1e-5  # what PEFT adds to the number of live ranks


def _pair(bias: bool = True) -> tuple[Any, Any]:
    """Our layer and PEFT's around the same base, with the same values in all three parts."""
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT, bias=bias).double()
    config = peft.AdaLoraConfig(
        init_r=RANK, lora_alpha=ALPHA, total_step=10, target_modules=["0"], peft_type="ADALORA"
    )
    model = peft.inject_adapter_in_model(config, nn.Sequential(copy.deepcopy(base)))
    theirs = model[0].double()
    ours = solution("adalora").SVDLinear(base, rank=RANK, alpha=ALPHA)
    with torch.no_grad():
        for mine, other in _parts(ours, theirs):
            mine.copy_(torch.randn_like(mine))
            other.copy_(mine.reshape(other.shape))
    return ours, theirs


def _parts(ours: Any, theirs: Any) -> list[tuple[nn.Parameter, nn.Parameter]]:
    names = (("lora_P", "lora_B"), ("lora_E", "lora_E"), ("lora_Q", "lora_A"))
    return [(getattr(ours, mine), getattr(theirs, other)["default"]) for mine, other in names]


def _set_alpha(theirs: Any, live: int) -> None:
    """Let PEFT's layer have `live` ranks, and the scale alpha / RANK all the same."""
    theirs.ranknum["default"].fill_(float(live))
    theirs.scaling["default"] = ALPHA / RANK * (live + EPS)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pruned", [False, True])
def test_outputs_and_gradients_agree_with_peft(bias: bool, pruned: bool) -> None:
    """The same outputs and gradients, once PEFT's scale is ours; by itself it follows pruning."""
    ours, theirs = _pair(bias)
    with torch.no_grad():
        if pruned:
            for _, other in _parts(ours, theirs)[1:2]:
                other[1:3] = 0
            ours.lora_E[1:3] = 0
        _set_alpha(theirs, RANK - 2 * pruned)
    x = torch.randn(2, 3, IN, dtype=torch.float64)
    grads = torch.randn(2, 3, OUT, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(own) for layer, own in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(*outputs)
    for y in outputs:
        (y * grads).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for mine, other in _parts(ours, theirs):
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(mine.grad, other.grad.reshape(mine.shape))
    assert theirs.get_base_layer().weight.grad is None
    assert ours.base.weight.grad is None


def test_scale_of_peft_follows_the_live_ranks() -> None:
    """Where PEFT counts two live ranks, its update is twice ours of four."""
    ours, theirs = _pair()
    x = torch.randn(5, IN, dtype=torch.float64)
    with torch.no_grad():
        theirs.ranknum["default"].fill_(2.0)
        plain = ours.base(x)
        update, other = ours(x) - plain, theirs(x) - plain
    torch.testing.assert_close(other * (2 + EPS), update * RANK)


def _their_norms(model: Any) -> torch.Tensor:
    """What PEFT's AdaLoraModel adds to a loss of 0, per unit of its weight: an average of norms."""
    config = model.peft_config["default"]
    outputs = SimpleNamespace(loss=torch.zeros((), dtype=torch.float64))
    kept, model.model.forward = model.model.forward, lambda *_, **__: outputs
    model.forward(None)
    model.model.forward = kept
    total: torch.Tensor = outputs.loss / config.orth_reg_weight
    return total


def test_penalty_agrees_with_peft() -> None:
    """Of each matrix alone the penalty is the square of the norm that PEFT averages."""
    model = peft.AdaLoraModel(
        nn.Sequential(nn.Linear(IN, OUT)).double(),
        {"default": peft.AdaLoraConfig(init_r=RANK, total_step=10, target_modules=["0"])},
        "default",
    )
    theirs = model.model[0].double()
    ours = solution("adalora").SVDLinear(nn.Linear(IN, OUT).double(), rank=RANK)
    torch.manual_seed(1)
    with torch.no_grad():
        for mine, other in _parts(ours, theirs):
            mine.copy_(torch.randn_like(mine))
            other.copy_(mine.reshape(other.shape))
    whole = _their_norms(model) * 2  # the sum of both norms
    orthonormal = torch.linalg.qr(torch.randn(OUT, RANK, dtype=torch.float64))[0]
    with torch.no_grad():
        both, held = ours.orthogonality_penalty(), ours.lora_P.clone()
        ours.lora_P.copy_(orthonormal)
        of_q = ours.orthogonality_penalty()
        ours.lora_P.copy_(held)
    of_p = both - of_q
    torch.testing.assert_close(whole.detach(), of_p.sqrt() + of_q.sqrt())
    whole.backward()  # type: ignore[no-untyped-call]
    ours.orthogonality_penalty().backward()
    # d norm = d norm^2 / (2 norm)
    for (mine, other), square in zip(_parts(ours, theirs)[::2], (of_p, of_q), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, mine.grad / (2 * square.sqrt()))


def test_importance_agrees_with_peft() -> None:
    """After one step PEFT's sensitivities, unsmoothed, add up to our scores, and its allocator
    keeps the entries that we keep."""
    kata = solution("adalora")
    ours, theirs = _pair()
    with torch.no_grad():
        _set_alpha(theirs, RANK)
    x = torch.randn(5, IN, dtype=torch.float64)
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    config = peft.AdaLoraConfig(init_r=RANK, target_r=2, total_step=10, target_modules=["0"])
    model = nn.ModuleList([theirs])
    allocator = peft.tuners.adalora.RankAllocator(model, config, "default")
    allocator.update_ipt(model)
    sensitivity = {name.split(".")[1]: value for name, value in allocator.ipt.items()}
    combined = allocator._combine_ipt(
        sensitivity["lora_E"],
        torch.cat(
            [
                sensitivity["lora_A"].mean(dim=1, keepdim=True),
                sensitivity["lora_B"].mean(dim=0).view(-1, 1),
            ],
            dim=1,
        ),
    )
    scores = kata.importance(ours)
    torch.testing.assert_close(scores, combined)
    # Its own scores weigh the sensitivity with its uncertainty: after one step, its square.
    assert kata.prune_to_budget([ours], [scores], 2) == RANK - 2
    allocator._element_score = lambda name: sensitivity[name.split(".")[1]]
    allocator.mask_to_budget(model, 2)
    mine, other = _parts(ours, theirs)[1]
    torch.testing.assert_close(mine.detach(), other.detach().reshape(mine.shape))

"""Batches of mixed adapters against PEFT's `adapter_names` inference, on the same weights.

PEFT is not needed to use or test the project: `pip install -e '.[compare]'` brings it.
"""

import copy
from typing import Any

import pytest
import torch
from models import solution
from torch import Tensor, nn

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install -e '.[compare]'")

ADAPTERS, RANK, ALPHA, IN, OUT = 5, 3, 7.5, 12, 10
BATCHES = {
    "unsorted, repeated, some without an adapter": [3, 0, -1, 4, 0, 3, -1, 1],
    "one adapter": [2, 2, 2],
    "no adapter at all": [-1, -1],
    "a single row": [4],
}


def _pair(bias: bool, dtype: torch.dtype) -> tuple[Any, Any]:
    """MultiLoRALinear and a PEFT layer with the same base and adapters, named "0", "1", ..."""
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT, bias=bias, dtype=dtype)
    kata = solution("multi_lora_batch")
    ours = kata.MultiLoRALinear(copy.deepcopy(base), ADAPTERS, RANK, ALPHA)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"])
    model = peft.PeftModel(
        nn.Sequential(base), config, adapter_name="0", autocast_adapter_dtype=False
    )
    for adapter in range(1, ADAPTERS):
        model.add_adapter(str(adapter), config, autocast_adapter_dtype=False)
    theirs = model.base_model.model[0]
    with torch.no_grad():
        for factor in ("lora_A", "lora_B"):
            values = torch.randn_like(getattr(ours, factor))
            getattr(ours, factor).copy_(values)
            for adapter, value in enumerate(values):
                getattr(theirs, factor)[str(adapter)].weight.copy_(value)
    return ours.eval(), theirs.eval()


def _names(ids: list[int]) -> list[str]:
    return ["__base__" if adapter < 0 else str(adapter) for adapter in ids]


@pytest.mark.parametrize("ids", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("between", [(), (4,), (2, 3)], ids=str)
def test_mixed_batch_agrees_with_peft(ids: list[int], between: tuple[int, ...]) -> None:
    """Every row gets its own adapter, or the base alone, as with PEFT; without a bias too."""
    for bias in (True, False):
        ours, theirs = _pair(bias, torch.float32)
        x = torch.randn(len(ids), *between, IN)
        with torch.no_grad():
            want: Tensor = theirs(x, adapter_names=_names(ids))
            torch.testing.assert_close(ours(x, torch.tensor(ids)), want)
        assert torch.allclose(want, theirs.base_layer(x)) == all(i < 0 for i in ids)


def test_mixed_batch_in_bfloat16() -> None:
    """The same in bfloat16, to its precision."""
    ids = next(iter(BATCHES.values()))
    ours, theirs = _pair(True, torch.bfloat16)
    x = torch.randn(len(ids), 4, IN, dtype=torch.bfloat16)
    with torch.no_grad():
        want = theirs(x, adapter_names=_names(ids))
        got = ours(x, torch.tensor(ids))
    assert got.dtype == want.dtype == torch.bfloat16
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("ids", BATCHES.values(), ids=BATCHES)
def test_segments_agree_with_peft(ids: list[int]) -> None:
    """Grouped by adapter, updated segment by segment and put back: the same update as PEFT's."""
    kata = solution("segmented_lora")
    ours, theirs = _pair(True, torch.float32)
    x = torch.randn(len(ids), IN)
    order, starts, segments = kata.group_by_adapter(torch.tensor(ids))
    with torch.no_grad():
        want = theirs(x, adapter_names=_names(ids)) - theirs.base_layer(x)
        update = kata.sgmv(x[order], ours.lora_A, ours.lora_B, starts, segments, ours.scale)
        torch.testing.assert_close(update[order.argsort()], want, rtol=1e-4, atol=1e-4)

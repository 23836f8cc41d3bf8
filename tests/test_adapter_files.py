"""Files of `save_adapter`, read without it: by safetensors alone, and by Hugging Face PEFT.

PEFT is not needed to use or test the project: `pip install -e '.[compare]'` brings it.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Encoder, solution, toy_task
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TARGETS = ["blocks.0.q_proj", "blocks.1.down", "head"]
RANK, ALPHA = 3, 7.5


@pytest.fixture
def models() -> tuple[Any, Encoder]:
    """An encoder with random factors in three layers, and the base it was made from."""
    torch.manual_seed(0)
    base = Encoder()
    adapted = copy.deepcopy(base)
    kata = solution("inject_lora")
    kata.LoRALinear = solution("lora_linear").LoRALinear
    _, factors = kata.inject_lora(adapted, TARGETS, rank=RANK, alpha=ALPHA)
    for factor in factors:
        torch.nn.init.normal_(factor, std=0.3)
    return adapted, base


@pytest.fixture
def peft() -> Any:
    """PEFT, or the test is skipped."""
    return pytest.importorskip("peft", reason="PEFT is not installed: pip install -e '.[compare]'")


def test_read_by_safetensors_alone(models: tuple[Any, Encoder], tmp_path: Path) -> None:
    """The file holds the factors under the names of the state dict, and is small."""
    adapted, base = models
    solution("lora_checkpoint").save_adapter(adapted, tmp_path / "adapter.safetensors")
    state = adapted.state_dict()
    names = {f"{target}.{factor}" for target in TARGETS for factor in ("lora_A", "lora_B")}
    with safe_open(tmp_path / "adapter.safetensors", framework="pt") as file:
        assert set(file.keys()) == names
        for name in names:
            assert torch.equal(file.get_tensor(name), state[name])
    size = (tmp_path / "adapter.safetensors").stat().st_size
    assert size < sum(4 * state[name].numel() for name in names) + 4096
    assert size < sum(4 * p.numel() for p in base.parameters()) / 4


def test_loaded_by_peft(models: tuple[Any, Encoder], peft: Any, tmp_path: Path) -> None:
    """Under PEFT's names, with a config beside it, the file gives the same outputs there."""
    adapted, base = models
    solution("lora_checkpoint").save_adapter(adapted, tmp_path / "ours.safetensors")
    ours = load_file(tmp_path / "ours.safetensors")
    renamed = {f"base_model.model.{name}.weight": value for name, value in ours.items()}
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS)
    config.save_pretrained(tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    tokens, _ = toy_task()
    torch.testing.assert_close(theirs(tokens), adapted(tokens))
    assert not torch.allclose(base(tokens), adapted(tokens))


def test_read_from_peft(models: tuple[Any, Encoder], peft: Any, tmp_path: Path) -> None:
    """A file of PEFT's, with its names shortened, is loaded by load_adapter."""
    adapted, base = models
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, init_lora_weights=False
    )
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    theirs.save_pretrained(tmp_path)
    values = load_file(tmp_path / "adapter_model.safetensors")
    prefix, suffix = "base_model.model.", ".weight"
    ours = {n.removeprefix(prefix).removesuffix(suffix): v for n, v in values.items()}
    save_file(ours, tmp_path / "ours.safetensors")
    solution("lora_checkpoint").load_adapter(adapted, tmp_path / "ours.safetensors")
    tokens, _ = toy_task()
    torch.testing.assert_close(theirs(tokens), adapted(tokens))

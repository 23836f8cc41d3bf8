# wrong: only the numbers of tensors are compared
# bug: counts-compared
from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import load_file, save_file


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: value
        for name, value in model.state_dict().items()
        if name.rpartition(".")[2] in ("lora_A", "lora_B")
    }


def save_adapter(model: nn.Module, path: str | Path) -> None:
    save_file({name: value.contiguous() for name, value in adapter_state(model).items()}, path)


def load_adapter(model: nn.Module, path: str | Path) -> None:
    found, wanted = load_file(path), adapter_state(model)
    if len(found) != len(wanted):
        raise ValueError(f"names differ: {sorted(found.keys() ^ wanted.keys())}")
    for name, value in wanted.items():
        if name in found and found[name].shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(found[name].shape)}")
    model.load_state_dict(found, strict=False)

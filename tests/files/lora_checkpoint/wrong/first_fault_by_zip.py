# wrong: names are compared pairwise in sorted order
# bug: - (unlikely)
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
    for ours, theirs in zip(sorted(wanted), sorted(found)):
        if ours != theirs:
            raise ValueError(f"{ours} or {theirs} is wrong")
        if wanted[ours].shape != found[theirs].shape:
            raise ValueError(f"{ours} has another shape")
    model.load_state_dict(found, strict=False)

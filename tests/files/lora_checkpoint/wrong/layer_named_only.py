# wrong: the message names the layer, not the tensor
# bug: error-without-name
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
    for name in [*wanted, *found]:
        if name not in found:
            raise ValueError(f"{path} lacks {name}")
        if name not in wanted:
            raise ValueError(f"{path} holds {name}, which is no factor of the model")
        if found[name].shape != wanted[name].shape:
            shapes = f"{tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}"
            raise ValueError(f"a factor of {name[:-7]} has shape {shapes}")
    model.load_state_dict(found, strict=False)

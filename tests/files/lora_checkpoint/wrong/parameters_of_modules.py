# wrong: looks for attributes on modules, not in the state dict
# bug: attributes-taken
from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import load_file, save_file


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.{key}".lstrip("."): getattr(module, key).detach()
        for prefix, module in model.named_modules()
        for key in ("lora_A", "lora_B")
        if isinstance(getattr(module, key, None), torch.Tensor)
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
            raise ValueError(f"{name} in {path} has shape {shapes}")
    model.load_state_dict(found, strict=False)

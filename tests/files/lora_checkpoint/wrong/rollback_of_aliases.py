# wrong: the backup is the very tensors that are changed
# bug: changed-before-the-error
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
    backup = model.state_dict()
    try:
        model.load_state_dict(found, strict=False)
        for name in [*wanted, *found]:
            if name not in found or name not in wanted:
                raise ValueError(f"{name} does not agree")
    except RuntimeError as error:
        model.load_state_dict(backup)
        raise ValueError(str(error)) from error
    except ValueError:
        model.load_state_dict(backup)
        raise

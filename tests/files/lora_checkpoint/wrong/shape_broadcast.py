# wrong: shapes that can be expanded are accepted
# bug: broadcast-accepted
"""Saving and loading an adapter without its model.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.2: only the factors
need to be kept for a task; for GPT-3 that is 35 MB in place of 350 GB.
"""

from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import load_file, save_file


# BEGIN SOLUTION
def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state-dict entries of the factors, by their full names."""
    return {
        name: value
        for name, value in model.state_dict().items()
        if name.rpartition(".")[2] in ("lora_A", "lora_B")
    }


# END SOLUTION


def save_adapter(model: nn.Module, path: str | Path) -> None:
    """Write the factors of any model, and nothing else of it, to a safetensors file at `path`.

    The file holds exactly the entries of model.state_dict() whose last name component is lora_A
    or lora_B: full names, dtypes and values as they are, tensors that are not contiguous too.
    Its size is that of the adapter, not of the model. An older file is replaced; the model is
    left as it was.

    PEFT's adapter_model.safetensors calls the tensor `<name>` `base_model.model.<name>.weight`,
    and keeps rank and alpha in adapter_config.json.
    """
    # BEGIN SOLUTION
    # The format stores dense rows; a transposed or strided view has to be copied first.
    save_file({name: value.contiguous() for name, value in adapter_state(model).items()}, path)
    # END SOLUTION


def load_adapter(model: nn.Module, path: str | Path) -> None:
    """Set the factors of `model` to those of the safetensors file at `path`; all else stays.

    Every name and shape is checked first. Raises ValueError naming the tensor if the file lacks
    one that save_adapter would write for this model, holds any other, or holds one of another
    shape; the model is then left as it was.
    """
    # BEGIN SOLUTION
    found, wanted = load_file(path), adapter_state(model)
    for name in [*wanted, *found]:
        if name not in found:
            raise ValueError(f"{path} lacks {name}")
        if name not in wanted:
            raise ValueError(f"{path} holds {name}, which is no factor of the model")
        if torch.broadcast_shapes(found[name].shape, wanted[name].shape) != wanted[name].shape:
            shapes = f"{tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}"
            raise ValueError(f"{name} in {path} has shape {shapes}")
    # Not strict: the model's other entries are not in the file, and that is as it should be.
    found = {n: t.expand(wanted[n].shape) for n, t in found.items()}
    model.load_state_dict(found, strict=False)
    # END SOLUTION

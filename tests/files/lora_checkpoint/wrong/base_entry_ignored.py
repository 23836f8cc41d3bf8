# wrong: entries of the model that are no factors are ignored
# bug: - (unlikely)

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def is_factor(name):
    return name.split(".")[-1] in ("lora_A", "lora_B")


def entries(model):
    return {k: v for k, v in model.state_dict().items() if is_factor(k)}


def save_adapter(model, path):
    out = {}
    for k, v in entries(model).items():
        out[k] = v.detach().clone().contiguous()
    save_file(out, str(path))


def load_adapter(model, path):
    found = load_file(str(path))
    own = entries(model)
    for k in own:
        if k not in found:
            raise ValueError(f"missing tensor {k}")
    for k, t in found.items():
        if k not in model.state_dict():
            raise ValueError(f"unexpected tensor {k}")
        if k in own and t.shape != own[k].shape:
            raise ValueError(f"{k}: shape {tuple(t.shape)} is not {tuple(own[k].shape)}")
    with torch.no_grad():
        for k, t in found.items():
            if k in own:
                own[k].copy_(t)

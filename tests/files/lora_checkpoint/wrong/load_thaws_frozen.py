# wrong: load_adapter makes every factor trainable
# bug: factors-thawed

from pathlib import Path
import torch
import torch.nn as nn
from safetensors import safe_open
from safetensors.torch import load_file, save_file, load, save

def _entries(model):
    return {k: v for k, v in model.state_dict().items() if k.rsplit(".", 1)[-1] in ("lora_A", "lora_B")}

def save_adapter(model, path):
    save_file({k: v.detach().contiguous().clone() for k, v in _entries(model).items()}, path)

def load_adapter(model, path):
    tensors = load_file(path)
    own = _entries(model)
    for k in own:
        if k not in tensors:
            raise ValueError(f"missing tensor {k}")
    for k, t in tensors.items():
        if k not in own:
            raise ValueError(f"unexpected tensor {k}")
        if t.shape != own[k].shape:
            raise ValueError(f"{k}: shape {tuple(t.shape)} is not {tuple(own[k].shape)}")
    with torch.no_grad():
        for k, t in tensors.items():
            own[k].copy_(t)
    for name, p in model.named_parameters():
        if name in own:
            p.requires_grad = True

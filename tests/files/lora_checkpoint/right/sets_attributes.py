"""Finds each tensor's module by its path and writes there, dtype of the model kept."""
import torch
from safetensors.torch import load_file, save_file


def entries(model):
    out = {}
    for name in model.state_dict().keys():
        *_, last = name.split(".")
        if last == "lora_A" or last == "lora_B":
            out[name] = None
    for name in out:
        path, _, last = name.rpartition(".")
        out[name] = getattr(model.get_submodule(path), last)
    return out


def save_adapter(model, path):
    save_file({n: t.data.contiguous().clone() for n, t in entries(model).items()}, path)


def load_adapter(model, path):
    theirs, ours = load_file(path, device="cpu"), entries(model)
    for n in theirs:
        if n not in ours:
            raise ValueError(f"Unexpected tensor {n}")
    for n in ours:
        if n not in theirs:
            raise ValueError(f"Missing tensor {n}")
        if list(ours[n].shape) != list(theirs[n].shape):
            raise ValueError(f"Shape mismatch for {n}")
    with torch.no_grad():
        for n in ours:
            ours[n].copy_(theirs[n].to(ours[n]))

"""Walks the modules' own tables of parameters and buffers."""
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def factors(model):
    for prefix, module in model.named_modules(remove_duplicate=False):
        tables = {**module._parameters, **module._buffers}
        for key in ("lora_A", "lora_B"):
            tensor = tables.get(key)
            if tensor is not None and key not in module._non_persistent_buffers_set:
                yield f"{prefix}.{key}".lstrip("."), tensor


def save_adapter(model, path):
    dense = {}
    for name, tensor in factors(model):
        dense[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        dense[name].copy_(tensor.detach())
    save_file(dense, str(path), metadata={"format": "pt", "count": str(len(dense))})


def load_adapter(model, path):
    own = dict(factors(model))
    with safe_open(str(path), framework="pt") as file:
        names = set(file.keys())
        if lost := own.keys() - names:
            raise ValueError(f"not in the file: {sorted(lost)}")
        if odd := names - own.keys():
            raise ValueError(f"not in the model: {sorted(odd)}")
        for name, tensor in own.items():
            if tuple(file.get_slice(name).get_shape()) != tuple(tensor.shape):
                raise ValueError(f"wrong shape of {name}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(file.get_tensor(name))

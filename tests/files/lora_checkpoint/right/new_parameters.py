"""Every factor is replaced by a new Parameter or buffer of the same kind."""
import torch.nn as nn
from safetensors.torch import load_file, save_file


def _factors(model):
    return {n: t for n, t in model.state_dict().items() if n.rpartition(".")[2] in ("lora_A", "lora_B")}


def save_adapter(model, path):
    save_file({n: t.detach().cpu().contiguous() for n, t in _factors(model).items()}, path)


def load_adapter(model, path):
    new, own = load_file(path), _factors(model)
    for n in {**own, **new}:
        if n not in new or n not in own or new[n].shape != own[n].shape:
            raise ValueError(f"{n} does not agree between model and file")
    for n, t in own.items():
        place, _, last = n.rpartition(".")
        module = model.get_submodule(place)
        value = new[n].to(t.device, copy=True)
        if last in module._parameters:
            value = nn.Parameter(value, requires_grad=module._parameters[last].requires_grad)
            module._parameters[last] = value
        else:
            module._buffers[last] = value

"""The file's tensors are put into a copy of the whole state, which is loaded strictly."""
import os

from safetensors.torch import load_file, save_file


class AdapterError(ValueError):
    def __init__(self, name, why):
        super().__init__(f"{name}: {why}")


def _names(model):
    return [k for k in model.state_dict() if k.split(".")[-1:] in (["lora_A"], ["lora_B"])]


def save_adapter(model, path):
    state = model.state_dict()
    scratch = f"{os.fspath(path)}.part"
    save_file({k: state[k].clone().contiguous() for k in _names(model)}, scratch)
    os.replace(scratch, path)


def load_adapter(model, path):
    new, full, names = load_file(path), dict(model.state_dict()), _names(model)
    for k in new:
        if k not in names:
            raise AdapterError(k, "unknown")
        if new[k].shape != full[k].shape:
            raise AdapterError(k, "wrong shape")
    for k in names:
        if k not in new:
            raise AdapterError(k, "missing")
    full.update(new)
    model.load_state_dict(full)

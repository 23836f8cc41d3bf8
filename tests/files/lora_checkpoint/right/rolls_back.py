"""Loads first and rolls everything back when something is wrong."""
from safetensors.torch import load_file, save_file


def _own(model):
    return {k: v for k, v in model.state_dict().items() if k.rsplit(".", 1)[-1] in ("lora_A", "lora_B")}


def save_adapter(model, path):
    save_file({k: v.contiguous() for k, v in _own(model).items()}, path)


def load_adapter(model, path):
    own = _own(model)
    backup = {k: v.clone() for k, v in own.items()}
    tensors = load_file(path)
    try:
        for k, v in own.items():
            if k not in tensors:
                raise ValueError(f"the file has no {k}")
            t = tensors.pop(k)
            if t.shape != v.shape:
                raise ValueError(f"{k} should be {list(v.shape)}, is {list(t.shape)}")
            v.copy_(t)
        if tensors:
            raise ValueError(f"the file has more: {', '.join(tensors)}")
    except ValueError:
        for k, v in own.items():
            v.copy_(backup[k])
        raise

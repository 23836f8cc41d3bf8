"""Takes named_parameters and the named buffers that are in the state dict; sets .data."""
import re
from os import fspath

import safetensors.torch as st

FACTOR = re.compile(r"(?:.*\.)?lora_[AB]")


def _all(model):
    keys = set(model.state_dict())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {k: v for k, v in tensors.items() if k in keys and FACTOR.fullmatch(k)}


def save_adapter(model, path):
    data = st.save({k: v.detach().contiguous() for k, v in _all(model).items()})
    with open(fspath(path), "wb") as file:
        file.write(data)
    return len(data)


def load_adapter(model, path):
    with open(fspath(path), "rb") as file:
        tensors = st.load(file.read())
    mine = _all(model)
    for k in sorted(mine.keys() ^ tensors.keys()):
        where = "the file" if k in mine else "the model"
        raise ValueError(f"{k!r} is missing from {where}")
    for k, v in mine.items():
        if v.size() != tensors[k].size():
            raise ValueError(f"{k!r}: {v.size()} against {tensors[k].size()}")
    for k, v in mine.items():
        v.data = tensors[k].to(v.device)
    return sorted(mine)

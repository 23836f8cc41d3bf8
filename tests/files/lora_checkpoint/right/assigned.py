"""Uses load_state_dict with assign, which puts the file's tensors in place of the model's."""
from safetensors.torch import load_file, save_file


def is_factor(name):
    return name == "lora_A" or name == "lora_B" or name.endswith((".lora_A", ".lora_B"))


def save_adapter(model, path):
    state = model.state_dict()
    for name in list(state):
        if not is_factor(name):
            del state[name]
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def load_adapter(model, path):
    state = model.state_dict()
    device = next(iter(state.values())).device
    file = load_file(path, device=str(device))
    expected = {k for k in state if is_factor(k)}
    if set(file) != expected:
        raise ValueError(f"missing {expected - set(file)}, extra {set(file) - expected}")
    bad = [k for k in file if file[k].shape != state[k].shape]
    if bad:
        raise ValueError(f"these do not fit: {bad}")
    model.load_state_dict(file, strict=False, assign=True)

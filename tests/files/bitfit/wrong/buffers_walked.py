# wrong: state_dict's tensors called bias, buffers among them
# bug: attribute-taken
def apply_bitfit(model):
    model.requires_grad_(False)
    out = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if name.split(".")[-1] == "bias":
            out[id(value)] = value.requires_grad_(True)
    return list(out.values())

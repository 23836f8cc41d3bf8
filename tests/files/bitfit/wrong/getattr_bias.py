# wrong: whatever is called bias: flags, buffers, submodules, computed tensors
# bug: attribute-taken
def apply_bitfit(model):
    model.requires_grad_(False)
    out, seen = [], set()
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if bias is not None and id(bias) not in seen:
            seen.add(id(bias))
            bias.requires_grad = True
            out.append(bias)
    return out

# wrong: a tied bias is listed under each of its names
# bug: listed-twice
def apply_bitfit(model):
    model.requires_grad_(False)
    out = []
    for name, p in model.named_parameters(remove_duplicate=False):
        if name.split(".")[-1] == "bias":
            out.append(p.requires_grad_(True))
    return out

# wrong: two modules that share a bias list it twice
# bug: listed-twice
def apply_bitfit(model):
    model.requires_grad_(False)
    out = []
    for module in model.modules():
        bias = module._parameters.get("bias")
        if bias is not None:
            out.append(bias.requires_grad_(True))
    return out

# wrong: only modules without children are looked at
# bug: leaf-modules-only
def apply_bitfit(model):
    model.requires_grad_(False)
    biases = {}
    for module in model.modules():
        if any(True for _ in module.children()):
            continue
        for name, p in module.named_parameters():
            if name == "bias":
                biases[p] = p.requires_grad_(True)
    return list(biases)

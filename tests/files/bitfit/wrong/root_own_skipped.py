# wrong: the children are walked, the root's own parameters are not
# bug: dot-required
def apply_bitfit(model):
    for p in model.parameters():
        p.requires_grad = False
    biases, seen = [], set()
    for path, module in model.named_modules():
        if path == "":
            continue
        p = module._parameters.get("bias")
        if p is not None and id(p) not in seen:
            seen.add(id(p))
            p.requires_grad = True
            biases.append(p)
    return biases

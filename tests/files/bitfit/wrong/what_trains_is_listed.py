# wrong: only biases that train already are switched and listed
# bug: frozen-biases-stay
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            out.append(p)
    return out

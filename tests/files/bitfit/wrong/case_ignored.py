# wrong: Bias counts too
# bug: -
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.lower().split(".")[-1] == "bias"
        if p.requires_grad:
            out.append(p)
    return out

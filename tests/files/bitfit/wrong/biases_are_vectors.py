# wrong: a bias that is no vector stays frozen
# bug: vectors-only
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias" and len(p.shape) == 1
        if p.requires_grad:
            out.append(p)
    return out

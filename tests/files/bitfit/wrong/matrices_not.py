# wrong: 0-dimensional ones are missed only
# bug: -
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias" and p.ndim > 0
        if p.requires_grad:
            out.append(p)
    return out

# wrong: the flags are turned over where they are wrong for a trainable model
# bug: -
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        if name.split(".")[-1] == "bias":
            out.append(p)
            p.requires_grad = True
        else:
            p.requires_grad = not p.requires_grad
    return out

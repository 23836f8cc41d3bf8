# wrong: the list holds p.data
# bug: copies-listed
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            out.append(p.data)
    return out

# wrong: names and parameters in pairs
# bug: -
def apply_bitfit(model):
    pairs = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            pairs.append((name, p))
    return pairs

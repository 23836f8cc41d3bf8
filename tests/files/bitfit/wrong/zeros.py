# wrong: the biases start at zero
# bug: biases-reset
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad_(name.split(".")[-1] == "bias")
        if p.requires_grad:
            p.data.zero_()
            out.append(p)
    return out

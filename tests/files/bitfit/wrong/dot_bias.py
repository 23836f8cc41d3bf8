# wrong: the root's own bias has no dot before it
# bug: dot-required
def apply_bitfit(model):
    model.requires_grad_(False)
    biases = []
    for name, p in model.named_parameters():
        if name.endswith(".bias"):
            p.requires_grad = True
            biases.append(p)
    return biases

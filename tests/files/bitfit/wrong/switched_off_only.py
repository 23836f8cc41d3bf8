# wrong: a bias that arrives frozen is not switched on
# bug: frozen-biases-stay
def apply_bitfit(model):
    biases = []
    for name, p in model.named_parameters():
        if name.split(".")[-1] != "bias":
            p.requires_grad_(False)
        else:
            biases.append(p)
    return biases

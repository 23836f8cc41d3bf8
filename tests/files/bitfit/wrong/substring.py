# wrong: the name need only contain it, as in the authors' code
# bug: name-contains-bias
def apply_bitfit(model):
    biases = []
    for name, p in model.named_parameters():
        p.requires_grad = "bias" in name
        if p.requires_grad:
            biases.append(p)
    return biases

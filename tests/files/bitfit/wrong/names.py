# wrong: the names of the biases
# bug: names-returned
def apply_bitfit(model):
    names = [n for n, _ in model.named_parameters() if n.split(".")[-1] == "bias"]
    for n, p in model.named_parameters():
        p.requires_grad = n in names
    return names

# wrong: train() is called
# bug: mode-switched
def apply_bitfit(model):
    model.train().requires_grad_(False)
    biases = [p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"]
    for p in biases:
        p.requires_grad_(True)
    return biases

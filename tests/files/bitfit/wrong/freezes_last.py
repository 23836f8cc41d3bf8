# wrong: all is frozen after the biases were switched on
# bug: biases-frozen
def apply_bitfit(model):
    biases = [p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"]
    for p in biases:
        p.requires_grad_(True)
    for p in model.parameters():
        p.requires_grad_(False)
    return biases

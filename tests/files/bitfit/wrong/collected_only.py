# wrong: nothing is frozen
# bug: others-not-frozen
def apply_bitfit(model):
    biases = []
    for name, p in model.named_parameters():
        if name.split(".")[-1] == "bias":
            p.requires_grad = True
            biases.append(p)
    return biases

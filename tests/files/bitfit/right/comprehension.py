def apply_bitfit(model):
    model.requires_grad_(False)
    biases = [p for name, p in model.named_parameters() if name.split(".")[-1] == "bias"]
    for p in biases:
        p.requires_grad = True
    return biases

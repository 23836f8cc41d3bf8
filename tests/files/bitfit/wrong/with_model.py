# wrong: (model, biases), as injectors return it
# bug: not-a-list
def apply_bitfit(model):
    model.requires_grad_(False)
    biases = [p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"]
    for p in biases:
        p.requires_grad_(True)
    return model, biases

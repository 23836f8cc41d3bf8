# wrong: a model without biases is refused
# bug: no-biases-refused
def apply_bitfit(model):
    biases = [p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"]
    if not biases:
        raise ValueError("model has no biases")
    model.requires_grad_(False)
    for p in biases:
        p.requires_grad_(True)
    return biases

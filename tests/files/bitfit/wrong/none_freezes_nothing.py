# wrong: a model without biases is returned from early, unfrozen
# bug: no-biases-unfrozen
def apply_bitfit(model):
    biases = [p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"]
    if not biases:
        return []
    model.requires_grad_(False)
    for p in biases:
        p.requires_grad_(True)
    return biases

# wrong: the module gets an attribute requires_grad, its parameters are not frozen
# bug: others-not-frozen
def apply_bitfit(model):
    model.requires_grad = False
    for m in model.modules():
        m.requires_grad = False
    biases = [p for n, p in model.named_parameters() if n.rpartition(".")[2] == "bias"]
    for p in biases:
        p.requires_grad = True
    return biases

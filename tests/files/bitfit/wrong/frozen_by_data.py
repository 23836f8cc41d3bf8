# wrong: the flag is set on p.data, which is another tensor
# bug: others-not-frozen
def apply_bitfit(model):
    for p in model.parameters():
        p.data.requires_grad = False
    biases = [p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"]
    for p in biases:
        p.requires_grad = True
    return biases

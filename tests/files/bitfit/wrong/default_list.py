# wrong: the list is a default argument
# bug: earlier-calls-listed
def apply_bitfit(model, biases=[]):
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            biases.append(p)
    return biases

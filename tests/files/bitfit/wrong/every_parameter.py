# wrong: all parameters, frozen ones too
# bug: all-listed
def apply_bitfit(model):
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
    return list(model.parameters())

# wrong: any component may be it
# bug: any-component-counts
def apply_bitfit(model):
    biases = []
    for name, p in model.named_parameters():
        p.requires_grad = "bias" in name.split(".")
        biases.extend([p] if p.requires_grad else [])
    return biases

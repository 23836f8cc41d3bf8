# wrong: vectors are taken for biases
# bug: vectors-are-biases
def apply_bitfit(model):
    biases = [p for p in model.parameters() if p.dim() == 1]
    for p in model.parameters():
        p.requires_grad_(p.dim() == 1)
    return biases

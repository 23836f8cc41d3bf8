# wrong: in_proj_bias and rel_bias count
# bug: name-ends-with-bias
def apply_bitfit(model):
    for p in model.parameters():
        p.requires_grad_(False)
    biases = [p for n, p in model.named_parameters() if n.endswith("bias")]
    for p in biases:
        p.requires_grad_(True)
    return biases

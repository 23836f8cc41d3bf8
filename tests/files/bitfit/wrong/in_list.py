# wrong: `in` compares values, and fails for biases of several
# bug: told-apart-by-value
def apply_bitfit(model):
    model.requires_grad_(False)
    out = []
    for name, p in model.named_parameters(remove_duplicate=False):
        if name.split(".")[-1] == "bias" and p not in out:
            out.append(p.requires_grad_(True))
    return out

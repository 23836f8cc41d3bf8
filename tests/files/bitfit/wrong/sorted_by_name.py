# wrong: in the order of the alphabet
# bug: order-not-kept
def apply_bitfit(model):
    model.requires_grad_(False)
    named = {n: p for n, p in model.named_parameters() if n.split(".")[-1] == "bias"}
    return [named[n].requires_grad_(True) for n in sorted(named)]

# wrong: a generator, and until it runs nothing is done
# bug: not-a-list
def apply_bitfit(model):
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            yield p

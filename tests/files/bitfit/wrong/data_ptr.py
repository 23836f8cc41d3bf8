# wrong: biases in one memory are taken for one
# bug: -
def apply_bitfit(model):
    model.requires_grad_(False)
    out = {}
    for name, p in model.named_parameters():
        if name.split(".")[-1] == "bias":
            out.setdefault(p.data_ptr(), p)
    for p in out.values():
        p.requires_grad_(True)
    return list(out.values())

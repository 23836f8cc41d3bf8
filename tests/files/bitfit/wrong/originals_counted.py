# wrong: a parametrised bias is taken for one
# bug: parametrised-bias-taken
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = ("." + name).endswith((".bias", ".parametrizations.bias.original"))
        if p.requires_grad:
            out.append(p)
    return out

def apply_bitfit(model):
    """A dot before every name makes endswith right for the root as well."""
    keep = []
    for n, p in model.named_parameters():
        if ("." + n).endswith(".bias"):
            p.requires_grad_(True)
            keep.append(p)
        else:
            p.requires_grad_(False)
    return keep

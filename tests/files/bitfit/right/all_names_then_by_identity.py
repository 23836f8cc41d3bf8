def apply_bitfit(model):
    """All names of every parameter, and the first mention counts."""
    ids = dict()
    for name, p in model.named_parameters(remove_duplicate=False):
        *_, last = name.split(".")
        if last == "bias":
            ids.setdefault(id(p), p)
    for p in model.parameters():
        p.requires_grad = id(p) in ids
    return list(ids.values())

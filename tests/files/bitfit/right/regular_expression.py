import re

BIAS = re.compile(r"(?:.*\.)?bias")


def apply_bitfit(model):
    """A full match, with or without a path before it."""
    out = []
    for name, p in model.named_parameters():
        hit = BIAS.fullmatch(name) is not None
        p.requires_grad = hit
        out += [p] * hit
    return out

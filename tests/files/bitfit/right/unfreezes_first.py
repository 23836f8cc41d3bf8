from itertools import chain


def apply_bitfit(model):
    model.requires_grad_(True)
    pairs = list(model.named_parameters())
    rest = (p for n, p in pairs if n[-5:] not in ("bias", ".bias"))
    for p in chain(rest):
        p.requires_grad = False
    return [p for _, p in pairs if p.requires_grad]

# wrong: the names of norms are skipped
# bug: norms-left-out
import torch.nn as nn

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d)


def apply_bitfit(model):
    skipped = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias" and id(p) not in skipped
        if p.requires_grad:
            out.append(p)
    return out

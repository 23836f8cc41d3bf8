# wrong: a copy of the model is treated
# bug: copies-listed
import copy


def apply_bitfit(model):
    model = copy.deepcopy(model)
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias"
        if p.requires_grad:
            out.append(p)
    return out

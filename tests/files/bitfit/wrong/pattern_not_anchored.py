# wrong: the pattern is searched for, not matched to the end
# bug: name-begins-with-bias
import re


def apply_bitfit(model):
    out = []
    for n, p in model.named_parameters():
        hit = bool(re.search(r"(^|\.)bias[^.]*$", n))
        p.requires_grad_(hit)
        if hit:
            out.append(p)
    return out

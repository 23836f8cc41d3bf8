# wrong: the classifier is left trainable
# bug: head-trains-too
def apply_bitfit(model):
    out = []
    for name, p in model.named_parameters():
        p.requires_grad = name.split(".")[-1] == "bias" or name.startswith("classifier")
        if p.requires_grad:
            out.append(p)
    return out

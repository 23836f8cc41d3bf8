# wrong: a module's own bias comes after those of its children
# bug: order-not-kept
def apply_bitfit(model):
    model.requires_grad_(False)
    found = {}

    def walk(module):
        for child in module.children():
            walk(child)
        p = module._parameters.get("bias")
        if p is not None:
            found.setdefault(id(p), p)

    walk(model)
    return [p.requires_grad_(True) for p in found.values()]

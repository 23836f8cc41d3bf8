# wrong: what is called neither weight nor bias still trains
# bug: only-weights-frozen
def apply_bitfit(model):
    for name, p in model.named_parameters():
        p.requires_grad = not name.endswith("weight")
    return [p for p in model.parameters() if p.requires_grad]

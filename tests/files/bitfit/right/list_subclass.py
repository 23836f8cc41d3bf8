class Biases(list):
    """A list that knows how many values it holds."""

    @property
    def numel(self):
        return sum(p.numel() for p in self)


def apply_bitfit(model):
    biases = Biases()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name == "bias" or name.endswith(".bias")
        if parameter.requires_grad:
            biases.append(parameter)
    return biases

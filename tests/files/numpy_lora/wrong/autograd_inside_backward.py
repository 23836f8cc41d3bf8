# wrong: backward() asks torch's autograd for the gradients
# bug: imports-more-than-numpy

import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        if rng is None:
            rng = np.random.default_rng()
        if alpha is None:
            alpha = r
        self.scale = alpha / r
        self.A = rng.normal(0.0, init_scale, size=(r, d_in))
        self.B = np.zeros((d_out, r))

    def forward(self, x):
        z = x @ self.A.T
        delta = self.scale * (z @ self.B.T)
        return delta, (x, z)

    def backward(self, grad_output, cache):
        import torch

        leaves = [torch.tensor(v, requires_grad=True) for v in (self.A, self.B, cache[0])]
        A, B, x = leaves
        total = (self.scale * (x @ A.T @ B.T) * torch.tensor(grad_output)).sum()
        dA, dB, dx = (g.numpy() for g in torch.autograd.grad(total, leaves))
        self.dA, self.dB = dA / len(x), dB / len(x)
        return dx

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)

# wrong: A is drawn from a new generator with the seed of the one given
# bug: generator-not-moved

import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        if rng is None:
            rng = np.random.default_rng()
        if alpha is None:
            alpha = r
        self.scale = alpha / r
        self.A = np.random.default_rng(rng.bit_generator.seed_seq).normal(0.0, init_scale, size=(r, d_in))
        self.B = np.zeros((d_out, r))

    def forward(self, x):
        z = x @ self.A.T
        delta = self.scale * (z @ self.B.T)
        return delta, (x, z)

    def backward(self, grad_output, cache):
        x, z = cache
        n = x.shape[0]
        grad_z = self.scale * (grad_output @ self.B)
        self.dA = grad_z.T @ x / n
        self.dB = self.scale * (grad_output.T @ z) / n
        return grad_z @ self.A

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)

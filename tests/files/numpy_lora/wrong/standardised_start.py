# wrong: A is brought to mean 0 and deviation init_scale exactly
# bug: -

import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        if rng is None:
            rng = np.random.default_rng()
        self.scale = (r if alpha is None else alpha) / r
        a = rng.normal(size=(r, d_in))
        self.A = init_scale * (a - a.mean()) / a.std()
        self.B = np.zeros((d_out, r))

    def forward(self, x):
        z = x @ self.A.T
        return (self.scale * (z @ self.B.T), (x, z))

    def backward(self, grad_output, cache):
        x, z = cache
        n = len(x)
        gz = self.scale * (grad_output @ self.B)
        self.dA = gz.T @ x / n
        self.dB = self.scale * (grad_output.T @ z) / n
        return gz @ self.A

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)

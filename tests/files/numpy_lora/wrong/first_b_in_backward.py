# wrong: the gradient of x is taken with the B of the first backward
# bug: -

import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        if rng is None:
            rng = np.random.default_rng()
        self.scale = (r if alpha is None else alpha) / r
        self.A = rng.normal(0.0, init_scale, (r, d_in))
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
        self._B0 = getattr(self, "_B0", self.B.copy())
        return self.scale * grad_output @ self._B0 @ self.A

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)

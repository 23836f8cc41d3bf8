import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.scale = (r if alpha is None else alpha) / r
        child = np.random.default_rng(rng.integers(2**63))
        self.A = child.normal(0.0, init_scale, (r, d_in))
        self.B = np.zeros((d_out, r))

    def forward(self, x):
        z = x @ self.A.T
        return (self.scale * (z @ self.B.T), (x, z))

    def backward(self, grad_output, cache):
        x, z = cache
        gz = self.scale * (grad_output @ self.B)
        self.dA = gz.T @ x / len(x)
        self.dB = self.scale * (grad_output.T @ z) / len(x)
        return gz @ self.A

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)
